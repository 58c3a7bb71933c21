# SPDX-License-Identifier: GPL-2.0-only
# hako: build, test, install. `make help` lists the targets and the variables.

VERSION := 0.1.0
SOVERSION := 0

O      ?= build
PREFIX ?= /usr/local
ifeq ($(origin CC),default)
CC := gcc
endif
WITHOUT ?=

# V=1 shows the commands, -s nothing.
ifeq ($(V),1)
say :=
else ifneq ($(findstring s,$(firstword -$(MAKEFLAGS))),)
Q   := @
say :=
else
Q   := @
say  = @printf '  %-5s %s\n' '$1' '$(patsubst $O/%,%,$2)'
endif

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

# --- dependencies ----------------------------------------------------------------------------
# liburing is linked. The others are loaded when a VM asks for what they do (vmm/dl.h), so that a VM
# that does not use them does not pay for them; at build time only their headers are needed.
OPTIONAL := slirp json zlib zstd lz4 lzma seccomp
WITH     := $(filter-out $(WITHOUT),$(OPTIONAL))
ifneq ($(filter-out $(OPTIONAL),$(WITHOUT)),)
$(error WITHOUT="$(filter-out $(OPTIONAL),$(WITHOUT))": no such dependency; there are: $(OPTIONAL))
endif
upper = $(subst a,A,$(subst b,B,$(subst c,C,$(subst d,D,$(subst e,E,$(subst f,F,$(subst g,G,$(subst h,H,$(subst i,I,$(subst j,J,$(subst k,K,$(subst l,L,$(subst m,M,$(subst n,N,$(subst o,O,$(subst p,P,$(subst q,Q,$(subst r,R,$(subst s,S,$(subst t,T,$(subst u,U,$(subst v,V,$(subst w,W,$(subst x,X,$(subst y,Y,$(subst z,Z,$1))))))))))))))))))))))))))
json_CFLAGS := $(if $(filter json,$(WITH)),$(shell pkg-config --cflags json-c))

DEFS  := -D_GNU_SOURCE -DHAKO_VERSION='"$(VERSION)"' $(foreach d,$(WITH),-DWITH_$(call upper,$d))
WARN  := -Wall -Wextra -Wmissing-prototypes -Wstrict-prototypes -Wshadow -Wpointer-arith \
         -Wwrite-strings -Wvla -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
# KVM's structs end in arrays of any length, whose room is the next field.
WARN  += -Wno-gnu-variable-sized-type-not-at-end
HARD  := -fPIC -fstack-protector-strong -fstack-clash-protection -fcf-protection
ifeq ($(DEBUG),1)
OPT   := -O0 -g3
else ifneq ($(SAN),)
OPT   := -O1 -g
else
OPT   := -O2 -g
HARD  += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
endif
ifeq ($(SAN),1)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),thread)
SANFLAGS := -fsanitize=thread
WARN += -Wno-tsan # of fences it knows nothing, and what is in guest memory it does not see
endif
# Objects for fuzz targets, which `make fuzz` builds by itself.
ifeq ($(FUZZ),1)
SANFLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer
OPT   := -O1 -g
endif
# With FUZZ=1: counters of what is reached, in place of the sanitizers.
ifeq ($(COV),1)
SANFLAGS := -fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping
endif
ifneq ($(WERROR),)
WARN += -Werror
endif
CFLAGS_ALL  = -std=gnu11 $(OPT) $(WARN) $(HARD) $(SANFLAGS) $(DEFS) -I. -Ivmm -fvisibility=hidden \
              -pthread $(foreach d,$(WITH),$($d_CFLAGS)) $(CFLAGS)
LDFLAGS_ALL = $(SANFLAGS) -pthread -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack $(LDFLAGS)
LIBS        = -luring -ldl

# --- sources ---------------------------------------------------------------------------------
LIB_SRC  := $(sort $(wildcard vmm/*.c vmm/lib/*.c vmm/gdb/*.c vmm/monitor/*.c vmm/migrate/*.c arch/x86/*.c \
              devices/*/*.c virtio/*.c))
CLI_SRC  := $(sort $(wildcard vmm/cli/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
ifneq ($(filter slirp,$(WITHOUT)),)
LIB_SRC := $(filter-out devices/net/user.c,$(LIB_SRC))
endif
LIB_OBJ  := $(LIB_SRC:%.c=$O/obj/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$O/obj/%.o)
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$O/unit/%)

all: $O/hako $O/libhako.a $O/libhako.so

# Compiler and flags are prerequisites of every object, so that `make SAN=1` after `make` rebuilds.
FLAGS_NOW := $(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL)
$O/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(FLAGS_NOW))' | cmp -s - $@ || echo '$(subst ','\'',$(FLAGS_NOW))' > $@

$O/obj/%.o: %.c $O/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# A shadow stack would have to change with the stack, so what has coroutines must not say that it can have one.
$O/obj/vmm/coroutine.o: CFLAGS_ALL += -fcf-protection=branch

# One relocatable object: the classes register themselves through a linker section, so none may be
# dropped for want of a reference.
$O/libhako.o: $(LIB_OBJ)
	$(call say,LD,$@)
	$(Q)$(LD) -r -o $@ $^
$O/libhako.a: $O/libhako.o
	$(call say,AR,$@)
	$(Q)rm -f $@ $O/public.o && objcopy --localize-hidden $< $O/public.o && $(AR) rcs $@ $O/public.o
$O/libhako.so: $(LIB_OBJ) tools/libhako.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libhako.so.$(SOVERSION) \
	  -Wl,--version-script=tools/libhako.map $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(LIBS)
$O/hako: $(CLI_OBJ) $O/libhako.o
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

# --- process 1 of hako exec's guests, which the program carries in itself ------------------------
EXEC_INIT := $O/exec-init
EXEC_INIT_CFLAGS := -std=gnu11 -Os $(WARN) -ffreestanding -fno-stack-protector -fcf-protection=none \
  -fno-pic -fno-asynchronous-unwind-tables -static -nostdlib -s -Wl,--build-id=none \
  -Wl,-z,noexecstack,-z,noseparate-code
$(EXEC_INIT): vmm/cli/guest/init.c vmm/cli/guest/sys.h vmm/cli/guest/text.h vmm/cli/exec_proto.h $O/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(EXEC_INIT_CFLAGS) -o $@ $<
$O/obj/vmm/cli/exec_init.o: $(EXEC_INIT)
$O/obj/vmm/cli/exec_init.o: CFLAGS_ALL += -DEXEC_INIT='"$(EXEC_INIT)"'

# --- unit tests ------------------------------------------------------------------------------
$O/unit/%: $O/obj/tests/unit/%.o $O/libhako.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(LDFLAGS_ALL) $(RIG_LDFLAGS) -o $@ $^ $(shell pkg-config --libs check) $(LIBS)
# Instructions and allocations of the paths that every request takes.
PATHS_LDFLAGS := $(foreach f,malloc calloc realloc posix_memalign aligned_alloc io_uring_queue_init_params,-Wl,--wrap=$f)
$O/bench/paths: $O/obj/tests/bench/paths.o $O/libhako.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(LDFLAGS_ALL) $(PATHS_LDFLAGS) -o $@ $^ $(LIBS)
# Some hold VMs whose guest is one of tests/guest.
unit: $(UNIT_BIN) $O/guest/guest.elf $O/guest/exit.elf

# --- fuzzing ---------------------------------------------------------------------------------
TARGET ?= qcow2
TIME   ?= 60
$O/fuzz/%: $O/obj/tests/fuzz/%.o $O/libhako.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(if $(COV),-fsanitize=fuzzer -fprofile-instr-generate,-fsanitize=fuzzer,address,undefined) -pthread $(RIG_LDFLAGS) -o $@ $^ $(LIBS)
# These take KVM's place.
BOARD_RIGS := $O/fuzz/fuzz_board $O/fuzz/fuzz_gdb $O/unit/test_board
$(BOARD_RIGS): RIG_LDFLAGS := -Wl,--wrap=ioctl
fuzz:
	$(Q)$(MAKE) --no-print-directory CC=clang O=build-fuzz FUZZ=1 build-fuzz/fuzz/fuzz_$(TARGET)
	$(Q)tests/fuzz/run build-fuzz/fuzz/fuzz_$(TARGET) $(TIME)
# Many hours, of CPU time that nobody else wants.
HOURS ?= 6
fuzz-soak:
	$(Q)$(MAKE) --no-print-directory CC=clang O=build-fuzz FUZZ=1 fuzzers
	$(Q)tests/fuzz/soak $(HOURS)
# Over the seeds and what fuzz-soak has kept.
fuzz-coverage:
	$(Q)$(MAKE) --no-print-directory CC=clang O=build-fuzz-cov FUZZ=1 COV=1 fuzzers
	$(Q)tests/fuzz/coverage build-fuzz-cov build-fuzz/corpus
fuzzers: $(patsubst tests/%.c,$O/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz-shrink:
	$(Q)$(MAKE) --no-print-directory CC=clang O=build-fuzz FUZZ=1 build-fuzz/fuzz/fuzz_$(TARGET)
	$(Q)tests/fuzz/shrink build-fuzz/fuzz/fuzz_$(TARGET) $(FILE) $(TIME)

include tests/guest/guest.mk

# --- stock guests ----------------------------------------------------------------------------
setup:
	@tools/setup
lab: $O/hako
	@HAKO=$(abspath $O/hako) tests/lab/suite
demo:
	@tools/demo

# --- checking --------------------------------------------------------------------------------
check: setup
	@tests/check
lint: setup
	@tools/lint
# What threads hand to each other, under the thread sanitizer.
tsan:
	@tests/embed threads
# What an intruder could do in each kind of thread, here and in QEMU: a table.
what-if: $O/hako
	@HAKO=$(abspath $O/hako) tests/sandbox/what-if
# Random operations on disk images and power cuts, for hours. OPS=N says how many.
OPS ?= 1000000
soak: $O/hako guests
	@HAKO=$(abspath $O/hako) tests/block/differential --ops $(OPS)
	@HAKO=$(abspath $O/hako) tests/block/powercut --ops $$(($(OPS) / 10))
	@HAKO=$(abspath $O/hako) tests/block/powercut --guest --ops $$(($(OPS) / 10))
bench: setup $O/hako guests $O/bench/paths
	@$O/hako bench

# --- manual pages and installation -----------------------------------------------------------
MAN1 := $O/man/hako.1 $O/man/hako-img.1 $O/man/hako-io.1
MAN3 := $(patsubst docs/%.3.in,$O/man/%.3,$(sort $(wildcard docs/*.3.in)))
man: $(MAN1) $(MAN3)
# The reference of options and classes is printed by the program, out of its own tables.
$O/man/%.1: docs/%.1.in $O/hako
	@mkdir -p $(@D)
	$(call say,MAN,$@)
	$(Q)$O/hako help man $* > $@.reference
	$(Q)sed -e '/@REFERENCE@/{r $@.reference' -e 'd}' -e 's/@VERSION@/$(VERSION)/' $< > $@
$O/man/%.3: docs/%.3.in
	@mkdir -p $(@D)
	$(call say,MAN,$@)
	$(Q)sed -e 's/@VERSION@/$(VERSION)/' $< > $@

$O/hako.pc: tools/hako.pc.in $O/flags
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' $< > $@

BINDIR := $(DESTDIR)$(PREFIX)/bin
LIBDIR := $(DESTDIR)$(PREFIX)/lib
MANDIR := $(DESTDIR)$(PREFIX)/share/man
# Of programs that nobody calls by hand: what `hako bench` is made of.
EXECDIR := $(DESTDIR)$(PREFIX)/libexec/hako
install: all man guests
	$(Q)rm -f $O/hako.pc && $(MAKE) --no-print-directory $O/hako.pc
	install -d $(BINDIR) $(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include $(MANDIR)/man1 $(MANDIR)/man3
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 $O/hako $(BINDIR)/hako
	install -m 644 $O/libhako.a $(LIBDIR)/libhako.a
	install -m 755 $O/libhako.so $(LIBDIR)/libhako.so.$(VERSION)
	ln -sf libhako.so.$(VERSION) $(LIBDIR)/libhako.so.$(SOVERSION)
	ln -sf libhako.so.$(SOVERSION) $(LIBDIR)/libhako.so
	install -m 644 vmm/hako.h $(DESTDIR)$(PREFIX)/include/hako.h
	install -m 644 $O/hako.pc $(LIBDIR)/pkgconfig/hako.pc
	install -d $(DESTDIR)$(PREFIX)/share/hako/apparmor/abstractions
	install -m 644 tools/apparmor/hako $(DESTDIR)$(PREFIX)/share/hako/apparmor/hako
	install -m 644 tools/apparmor/abstractions/hako $(DESTDIR)$(PREFIX)/share/hako/apparmor/abstractions/hako
	install -m 644 $(MAN1) $(MANDIR)/man1
	install -m 644 $(MAN3) $(MANDIR)/man3
	install -d $(EXECDIR)/bench $(EXECDIR)/guest
	install -m 755 tests/bench/run $O/bench/bare $O/bench/life $(EXECDIR)/bench
	install -m 644 tests/bench/*.py $(EXECDIR)/bench
	install -m 644 $O/guest/guest.elf $O/guest/exit.elf $O/guest/exits.elf $(EXECDIR)/guest
	$O/hako completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/hako

clean:
	rm -rf $O

help:
	@echo 'make                build $O/hako, $O/libhako.a, $O/libhako.so'
	@echo 'make demo           boot a stock Debian kernel, with a disk and a network'
	@echo 'make check          all tests: unit (with sanitizers), bare-metal guests, stock guests'
	@echo 'make fuzz           spoilt input for TIME=60 seconds; TARGET=$(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))'
	@echo 'make fuzz-shrink    make what fails, FILE=, shorter; what TARGET=board fails on becomes a test in C'
	@echo 'make fuzz-soak      all targets for HOURS=6 of CPU time that is left over; goes on where it ended'
	@echo 'make fuzz-coverage  how much of each file the targets reach, from their seeds and what fuzz-soak has kept'
	@echo 'make tsan           what threads hand to each other, with the thread sanitizer'
	@echo 'make what-if        what an intruder could do in each kind of thread, beside QEMU: a table'
	@echo 'make lint           format, static analysis, warnings of gcc and clang'
	@echo 'make soak           disk images: a million random operations beside QEMU, and power cuts'
	@echo 'make bench          speed and size, beside QEMU ("hako bench")'
	@echo 'make install        to PREFIX (now $(PREFIX)), below DESTDIR if that is set'
	@echo 'make setup          install what all this needs, through apt'
	@echo 'make unit           build the unit tests in $O/unit'
	@echo 'make guests         build the bare-metal guests in $O/guest'
	@echo 'make lab            the stock guests alone'
	@echo 'make man            the manual pages in $O/man'
	@echo 'make clean          remove $O'
	@echo
	@echo 'O=DIR               build there instead of in build'
	@echo 'SAN=1               with the address and undefined-behaviour sanitizers'
	@echo 'SAN=thread          with the thread sanitizer'
	@echo 'DEBUG=1             without optimisation'
	@echo 'WITHOUT="NAME..."   leave out: $(OPTIONAL)'
	@echo 'CC=clang            another compiler'
	@echo 'WERROR=-Werror      warnings are errors'
	@echo 'V=1                 show the commands'

FORCE:
.PHONY: all unit setup lab demo check tsan what-if fuzz fuzz-soak fuzz-coverage fuzzers fuzz-shrink lint soak bench man install clean help FORCE
.SECONDARY:

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(UNIT_SRC:%.c=$O/obj/%.d) $(wildcard $O/obj/tests/fuzz/*.d)
