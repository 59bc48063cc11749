/* files: the files of a configuration, each read once.
 *
 * The master reads every file, possibly as root, and passes the set to its workers in a memory file. So a
 * worker has exactly the bytes that were checked, needs no permission to read secrets, and never sees a
 * half-written change. A set from the master never reads the disk. */
#ifndef FILES_H
#define FILES_H

#include "lib/vault.h"

enum file_kind {
    FILE_PLAIN,
    FILE_LIVE,   /* reloaded whenever it changes, not only on SIGHUP */
    FILE_SECRET, /* like FILE_LIVE; refused if others may read it; kept in the vault */
};

struct file {
    char *path;
    char *data; /* NUL behind the last byte */
    size_t len;
    enum file_kind kind;
    uint64_t stamp; /* identifies the version that was read, or refused */
    char *refused;  /* why the version on the disk is not in use (allocated); NULL: it is in use */
    bool used;      /* the configuration names the file */
};

struct files; /* the set; owns its files */

/* Prefix of the paths of files in $CREDENTIALS_DIRECTORY, where systemd puts a service's credentials
 * (LoadCredential=). */
#define FILES_CREDENTIAL "credential:"

enum files_mode {
    FILES_ALL,           /* every file must be usable */
    FILES_ALLOW_MISSING, /* a missing or invalid optional secret is no error */
    FILES_PLAIN_ONLY, /* no other files are read: files_get and secret_read return NULL with *ret_why NULL */
    FILES_SEALED,     /* received from the master: never reads the disk; see files_unseal */
};

struct files *files_new(enum files_mode mode);
void files_free(struct files *files); /* NULL is allowed */

/* File number i, or NULL after the last one. */
const struct file *files_at(const struct files *files, size_t i);
const struct file *files_find(const struct files *files, const char *path); /* or NULL */

/* The file at `path`, from the set or else read from the disk; at most `max` bytes.
 * NULL with *ret_why set (allocated: "cannot be read: Permission denied"). */
const struct file *files_get(struct files *files, const char *path, enum file_kind kind, size_t max,
                             char **ret_why);

enum { POOL_KEYS_MAX = 64, KEY_MARK_SIZE = 9 };

/* The one line of a file that holds a secret, at least `min_len` characters; vault_free() it. NULL with
 * *ret_why (allocated: "must contain one line of visible ASCII characters"), which never quotes the file. */
char *secret_read(struct files *files, const char *path, size_t min_len, char **ret_why);

/* A secret and its file; both NULL: none. */
struct secret {
    char *path;
    char *text; /* in the vault */
};

/* The mark of a key, which identifies it in logs and Redis: the first digits of its SHA-256. */
void key_mark(const char *key, char out[static KEY_MARK_SIZE]);

/* Wipes the content of the secret files, when all secrets have been read from it. */
void files_wipe_secrets(struct files *files);

/* A new set (FILES_ALL) with the files of `files`, except those that will be read from the disk again: the live or
 * secret file at `path` ("": none), or all live and secret files (NULL). */
struct files *files_renew(const struct files *files, const char *path);

/* Removes the files that files_get has not returned. */
void files_prune(struct files *files);

/* Whether the file differs from the one on the disk, or is refused. Plain files do not count. */
bool file_is_outdated(const struct file *file);

/* Records why the version of the file that is on the disk now is not in use; takes ownership of `why`. */
void files_refuse(struct files *files, const char *path, char *why);

/* Gives `files` the reasons and stamps of `other`, whose files have the same contents, and removes the reasons
 * there. */
void files_take_refusals(struct files *files, struct files *other);

/* Whether the configuration can be used without this secret, which is then in the set, empty and refused with
 * this reason. */
MUST_CHECK bool files_do_without(struct files *files, const char *path, const char *why);

/* The number of live and secret files in `is` that differ from those in `was` or are new; *ret_first is one
 * of them. */
size_t files_changed(const struct files *was, const struct files *is, const char **ret_first);

/* A number that identifies the versions of all live and secret files together: those that were read, or those
 * that are on the disk now. It does not matter how a file was replaced: written in place, renamed, or reached
 * through another symbolic link. */
uint64_t files_stamp(const struct files *files, bool now);

/* A set ready to be passed to workers. */
struct files_image {
    int fd;      /* a sealed memory file, for a worker to inherit; -1: none */
    void *pages; /* the file's pages, mapped to keep them locked */
    size_t len;
};

/* 0, or a negative errno. */
MUST_CHECK int files_seal(const struct files *files, struct files_image *ret_image);
void files_image_done(struct files_image *image);

/* The set that another process sealed, or NULL. */
struct files *files_unseal(int fd);

#endif
