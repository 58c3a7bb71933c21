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

# V=1 shows the commands.
ifeq ($(V),1)
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
OPTIONAL := slirp json zlib zstd lz4 lzma
WITH     := $(filter-out $(WITHOUT),$(OPTIONAL))
ifneq ($(filter-out $(OPTIONAL),$(WITHOUT)),)
$(error WITHOUT="$(filter-out $(OPTIONAL),$(WITHOUT))": no such dependency; there are: $(OPTIONAL))
endif
upper = $(subst a,A,$(subst b,B,$(subst c,C,$(subst d,D,$(subst e,E,$(subst f,F,$(subst g,G,$(subst h,H,$(subst i,I,$(subst j,J,$(subst k,K,$(subst l,L,$(subst m,M,$(subst n,N,$(subst o,O,$(subst p,P,$(subst q,Q,$(subst r,R,$(subst s,S,$(subst t,T,$(subst u,U,$(subst v,V,$(subst w,W,$(subst x,X,$(subst y,Y,$(subst z,Z,$1))))))))))))))))))))))))))
json_CFLAGS := $(if $(filter json,$(WITH)),$(shell pkg-config --cflags json-c))

DEFS  := -D_GNU_SOURCE -DHAKO_VERSION='"$(VERSION)"' $(foreach d,$(WITH),-DWITH_$(call upper,$d))
WARN  := -Wall -Wextra -Wmissing-prototypes -Wstrict-prototypes -Wshadow -Wpointer-arith \
         -Wwrite-strings -Wvla -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
HARD  := -fPIC -fstack-protector-strong -fcf-protection
ifeq ($(DEBUG),1)
OPT   := -O0 -g3
else ifeq ($(SAN),1)
OPT   := -O1 -g
else
OPT   := -O2 -g
HARD  += -D_FORTIFY_SOURCE=2
endif
ifeq ($(SAN),1)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif
ifneq ($(WERROR),)
WARN += -Werror
endif
CFLAGS_ALL  = -std=gnu11 $(OPT) $(WARN) $(HARD) $(SANFLAGS) $(DEFS) -I. -Ivmm -fvisibility=hidden \
              -pthread $(foreach d,$(WITH),$($d_CFLAGS)) $(CFLAGS)
LDFLAGS_ALL = $(SANFLAGS) -pthread -Wl,-z,relro $(LDFLAGS)
LIBS        = -luring -ldl

# --- sources ---------------------------------------------------------------------------------
LIB_SRC  := $(sort $(wildcard vmm/*.c vmm/monitor/*.c vmm/migrate/*.c arch/x86/*.c devices/*/*.c \
              virtio/*.c))
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

# One relocatable object: the classes register themselves through a linker section, so none may be
# dropped for want of a reference.
$O/libhako.o: $(LIB_OBJ)
	$(call say,LD,$@)
	$(Q)$(LD) -r -o $@ $^
$O/libhako.a: $O/libhako.o
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $<
$O/libhako.so: $(LIB_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libhako.so.$(SOVERSION) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
$O/hako: $(CLI_OBJ) $O/libhako.o
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

# --- unit tests ------------------------------------------------------------------------------
$O/unit/%: $O/obj/tests/unit/%.o $O/libhako.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(LDFLAGS_ALL) -o $@ $^ $(shell pkg-config --libs check) $(LIBS)
unit: $(UNIT_BIN)

include tests/guest/guest.mk

# --- stock guests ----------------------------------------------------------------------------
setup:
	@tools/setup
lab: $O/hako
	@HAKO=$(abspath $O/hako) tests/lab/suite
demo:
	@tools/demo
.PHONY: setup lab demo

clean:
	rm -rf $O

FORCE:
.PHONY: all unit clean FORCE
.SECONDARY:

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(UNIT_SRC:%.c=$O/obj/%.d)
