# SPDX-License-Identifier: GPL-2.0-only
# Bare-metal guests: $O/guest/exit.elf leaves at once, $O/guest/exits.elf times its exits, $O/guest/guest.elf holds every test. They are built
# with the host's compiler as ELF64 and become ELF32 files, as Multiboot 1 wants them.

GUEST_SRC := $(sort $(wildcard tests/guest/*.c)) tests/guest/start.S
GUEST_OBJ := $(GUEST_SRC:tests/guest/%=$O/guest/%.o)
GUEST_CFLAGS := -std=gnu11 -O2 -g $(WARN) -ffreestanding -fno-pic -fno-pie -mno-red-zone \
                -mgeneral-regs-only -fno-stack-protector -fcf-protection=none -fno-strict-aliasing \
                -fno-asynchronous-unwind-tables

$O/guest/%.c.o: tests/guest/%.c $O/flags tests/guest/guest.mk
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<
$O/guest/%.S.o: tests/guest/%.S $O/flags tests/guest/guest.mk
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

GUEST_LINK = $(LD) -nostdlib -static -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments \
             -T tests/guest/guest.lds
$O/guest/guest.elf: $(GUEST_OBJ) tests/guest/guest.lds
	$(Q)$(GUEST_LINK) -o $@.64 $(GUEST_OBJ)
	$(Q)objcopy -O elf32-i386 $@.64 $@
# Without the PVH note, which would come first.
$O/guest/start-multiboot.o: tests/guest/start.S $O/flags tests/guest/guest.mk
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -DNO_PVH -MMD -MP -c -o $@ $<
$O/guest/multiboot.elf: $(filter-out %/start.S.o,$(GUEST_OBJ)) $O/guest/start-multiboot.o tests/guest/guest.lds
	$(Q)$(GUEST_LINK) -o $@.64 $(filter %.o,$^)
	$(Q)objcopy -O elf32-i386 $@.64 $@
$O/guest/exit.elf $O/guest/exits.elf: $O/guest/%.elf: $O/guest/%.S.o tests/guest/guest.lds
	$(Q)$(GUEST_LINK) -o $@.64 $<
	$(Q)objcopy -S -O elf32-i386 $@.64 $@

# What the benchmarks of start-up and exits compare with.
$O/bench/bare: tests/bench/bare.c $O/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $<

# The same by libhako.
$O/bench/life: tests/bench/life.c $O/libhako.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< $O/libhako.a $(LIBS)

# Where `hako bench` looks for what measures.
$O/bench/run: tests/bench/run
	@mkdir -p $(@D)
	$(Q)ln -sf $(abspath $<) $@

guests: $O/guest/guest.elf $O/guest/multiboot.elf $O/guest/exit.elf $O/guest/exits.elf $O/bench/bare $O/bench/life $O/bench/run
.PHONY: guests

-include $(GUEST_OBJ:.o=.d) $O/guest/start-multiboot.d $O/guest/exit.S.d $O/guest/exits.S.d
