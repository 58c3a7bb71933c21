/* SPDX-License-Identifier: GPL-2.0-only */
/* Options of image formats, and creation of images, for all commands that have them. */
#ifndef VMM_CLI_IMG_CREATE_H
#define VMM_CLI_IMG_CREATE_H

#include "devices/block/image.h"
#include "img.h"

/** The -o options; a failure has been printed. */
int img_parse_options(const struct img *img, char *const *list, struct keyvals *kv);
/** A size with its suffix; a failure has been printed. */
int img_parse_size(const struct img *img, const char *text, uint64_t *size);
bool img_wants_options_help(const struct keyvals *kv);
int img_options_help(const struct option *table);

/** Create @filename with the options in @kv. A backing_file is opened, and gives the size if that is not there, unless @unsafe. */
int img_create_image(struct img *img, const struct image_format *fmt, const char *filename,
		     struct keyvals *kv, bool quiet, bool unsafe, struct hako_error *err);

#endif
