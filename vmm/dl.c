/* SPDX-License-Identifier: GPL-2.0-only */
#include "dl.h"

#include <dlfcn.h>

int dl_load(const char *soname, const struct dl_symbol *symbols, void *table, const char *purpose,
	    struct hako_error *err)
{
	void *handle = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

	if (!handle) {
		error_set(err, -ENOENT, "%s is needed for %s: %s", soname, purpose, dlerror());
		return error_hint(err, "\"hako doctor\" names the package");
	}
	for (; symbols->name; symbols++) {
		void *sym = dlsym(handle, symbols->name);

		if (!sym)
			return error_set(err, -ENOENT,
					 "%s is needed for %s, and this one is too old: no %s",
					 soname, purpose, symbols->name);
		memcpy((char *)table + symbols->offset, &sym, sizeof(sym));
	}
	return 0;
}
