/* SPDX-License-Identifier: GPL-2.0-only */
#include "cli.h"
#include "vmm/vm.h"

#ifdef HAVE_ASAN
/* At the end LeakSanitizer would trace its own process, which a confined one can not. */
static bool confined;

__attribute__((visibility("default"))) int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return confined;
}
#endif

int cli_confine(struct hako_vm *vm, enum sandbox_mode mode, unsigned int needs, const char *remove,
		struct hako_error *err)
{
	if (mode == SANDBOX_OFF)
		return 0;
#ifdef HAVE_ASAN
	confined = true;
#endif
	return vm_confine((struct vm *)vm, mode, needs, remove, err);
}
