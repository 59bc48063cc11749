/* files: what the configuration is made of, each file read once.
 *
 * The master reads every file - as root, where it is root - and hands the set to its workers through a memory
 * file. So a worker has exactly the bytes that were checked, needs no right to read a secret, and a reload
 * cannot see half of a change. A set that came from the master never looks at the disk. */
#ifndef FILES_H
#define FILES_H

#include "util.h"

enum file_kind {
    FILE_PLAIN,
    FILE_SECRET, /* refused when anyone but its owner may read it; wiped when the set is freed */
};

struct file {
    char *path;
    char *data; /* NUL behind the last byte */
    size_t len;
    enum file_kind kind;
};

struct files; /* the set; owns its files */

struct files *files_new(void);
void files_free(struct files *files); /* NULL is allowed */

/* The file at `path`, from the set or else from the disk; at most `max` bytes.
 * NULL with *ret_why set (allocated: "cannot be read: Permission denied"). */
const struct file *files_get(struct files *files, const char *path, enum file_kind kind, size_t max,
                             char **ret_why);

/* The set as a sealed memory file, for a worker to inherit; a negative errno on failure. */
MUST_CHECK int files_seal(const struct files *files);

/* The set that another process sealed, or NULL. */
struct files *files_unseal(int fd);

#endif
