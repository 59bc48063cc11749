/* files: what the configuration is made of, each file read once.
 *
 * The master reads every file - as root, where it is root - and hands the set to its workers through a memory
 * file. So a worker has exactly the bytes that were checked, needs no right to read a secret, and a reload
 * cannot see half of a change. A set that came from the master never looks at the disk. */
#ifndef FILES_H
#define FILES_H

#include <sys/stat.h>

#include "lib/vault.h"

enum file_kind {
    FILE_PLAIN,
    FILE_LIVE,   /* taken anew whenever it changes, not only at a reload */
    FILE_SECRET, /* likewise; refused when anyone but its owner may read it; in the vault */
};

/* By what one state of a file on the disk is told from another; all zero: it is not there. */
struct file_stamp {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

struct file {
    char *path;
    char *data; /* NUL behind the last byte */
    size_t len;
    enum file_kind kind;
    struct file_stamp stamp; /* of the file that was read */
};

struct files; /* the set; owns its files */

/* A path that begins so is a file of the folder $CREDENTIALS_DIRECTORY, where systemd puts what it hands to a
 * service (LoadCredential=). */
#define FILES_CREDENTIAL "credential:"

struct files *files_new(void);
void files_free(struct files *files); /* NULL is allowed */

/* The file at `path`, from the set or else from the disk; at most `max` bytes.
 * NULL with *ret_why set (allocated: "cannot be read: Permission denied"). */
const struct file *files_get(struct files *files, const char *path, enum file_kind kind, size_t max,
                             char **ret_why);

enum { POOL_KEYS_MAX = 64, KEY_MARK_SIZE = 9 };

/* The one line of a file that holds a secret, at least `min_len` characters; vault_free() it. NULL with *ret_why (allocated:
 * "must hold one line of visible ASCII characters"), which never repeats what the file holds. */
char *secret_read(struct files *files, const char *path, size_t min_len, char **ret_why);

/* The mark of a key, by which logs and Redis tell it from others: the first digits of its SHA-256. */
void key_mark(const char *key, char out[static KEY_MARK_SIZE]);

/* A new set with the plain files of `files`; the others will be read from the disk anew. */
struct files *files_renew(const struct files *files);

/* How many of the files that are not plain are new or other ones in `is`, against `was`; *ret_first: one of
 * them. */
size_t files_changed(const struct files *was, const struct files *is, const char **ret_first);

/* The files of the set, in no order; NULL behind the last. */
const struct file *files_at(const struct files *files, size_t i);

/* Where the file of that path is on the disk (allocated); NULL with *ret_why (allocated) when that cannot be
 * told. */
char *file_place(const char *path, char **ret_why);

/* The stamp of what is at `path` now. */
struct file_stamp file_stamp_now(const char *path);
bool file_stamp_same(const struct file_stamp *a, const struct file_stamp *b);

/* A set on its way to workers. */
struct files_image {
    int fd;      /* a sealed memory file, for a worker to inherit; -1: none */
    void *pages; /* of that file, mapped to keep them locked */
    size_t len;
};

/* 0, or a negative errno. */
MUST_CHECK int files_seal(const struct files *files, struct files_image *ret_image);
void files_image_done(struct files_image *image);

/* The set that another process sealed, or NULL. */
struct files *files_unseal(int fd);

#endif
