/* files: see files.h.
 *
 * The memory file: a magic line, then for each file one header "KIND LENGTH PATH\n" and its bytes. */
#include "lib/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "taskproxy files 1\n"

enum { FILES_MAX = 512, SECRET_FILE_MAX = 4096 };

struct files {
    struct file *items[FILES_MAX];
    size_t n;
    enum files_mode mode;
};

struct files *files_new(enum files_mode mode)
{
    struct files *files = xcalloc(1, sizeof(*files));
    files->mode = mode;
    return files;
}

static char *data_alloc(size_t size, enum file_kind kind)
{
    return kind == FILE_SECRET ? vault_alloc(size) : xcalloc(size, 1);
}

static void data_free(char *data, enum file_kind kind)
{
    if (kind == FILE_SECRET)
        vault_free(data);
    else
        free(data);
}

static void file_free(struct file *file)
{
    data_free(file->data, file->kind);
    free(file->path);
    free(file->refused);
    free(file);
}

void files_free(struct files *files)
{
    if (files == NULL)
        return;
    for (size_t i = 0; i < files->n; i++)
        file_free(files->items[i]);
    free(files);
}

/* Appends a NUL. */
static char *copy_bytes(const char *bytes, size_t len, enum file_kind kind)
{
    char *copy = data_alloc(len + 1, kind);
    memcpy(copy, bytes, len);
    return copy;
}

static struct file *add(struct files *files, const char *path, enum file_kind kind, char *data, size_t len)
{
    struct file *file = xcalloc(1, sizeof(*file));
    *file = (struct file){.path = xstrdup(path), .data = data, .len = len, .kind = kind};
    files->items[files->n++] = file;
    return file;
}

static struct file *find(const struct files *files, const char *path)
{
    for (size_t i = 0; i < files->n; i++) {
        if (strcmp(files->items[i]->path, path) == 0)
            return files->items[i];
    }
    return NULL;
}

const struct file *files_find(const struct files *files, const char *path)
{
    return find(files, path);
}

const struct file *files_at(const struct files *files, size_t i)
{
    return i < files->n ? files->items[i] : NULL;
}

/* ---- where they are ---- */

static bool is_credential(const char *path)
{
    return strncmp(path, FILES_CREDENTIAL, strlen(FILES_CREDENTIAL)) == 0;
}

/* The credential of that name, or the one that systemd has made from the file of that name in the folder of keys:
 * LoadCredential=keys:FOLDER calls it keys_NAME. */
static char *credential_place(const char *folder, const char *name)
{
    char *place = xasprintf("%s/%s", folder, name), *of_keys = xasprintf("%s/keys_%s", folder, name);
    bool has_own = access(place, F_OK) == 0 || access(of_keys, F_OK) < 0;
    free(has_own ? of_keys : place);
    return has_own ? place : of_keys;
}

/* The location of the file on the disk (allocated), or NULL with *ret_why (allocated). */
static char *file_place(const char *path, char **ret_why)
{
    if (!is_credential(path))
        return xstrdup(path);
    const char *name = path + strlen(FILES_CREDENTIAL), *folder = getenv("CREDENTIALS_DIRECTORY");
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        *ret_why = xstrdup("is not a valid credential name");
    else if (folder == NULL)
        *ret_why = xasprintf(
            "cannot be found: CREDENTIALS_DIRECTORY is not set (systemd sets it; when running by hand, "
            "set it to the folder that contains \"%s\")",
            name);
    else
        return credential_place(folder, name);
    return NULL;
}

/* ---- stamps ---- */

static uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15; /* an odd number: no two sums become equal here */
    return sum ^ sum >> 32;
}

/* Differs between any two versions of a file: in its contents, owner, mode or inode. */
static uint64_t stamp_of(const struct stat *st)
{
    uint64_t stamp = mix(mix(mix(0, st->st_dev), st->st_ino), (uint64_t)st->st_size);
    return mix(mix(stamp, (uint64_t)st->st_ctim.tv_sec), (uint64_t)st->st_ctim.tv_nsec);
}

/* The stamp of the file that is at `path` now; 0: there is none. */
static uint64_t stamp_now(const char *path)
{
    struct stat st;
    char *why = NULL, *place = file_place(path, &why);
    uint64_t stamp = place != NULL && stat(place, &st) == 0 ? stamp_of(&st) : 0;
    free(place);
    free(why);
    return stamp;
}

uint64_t files_stamp(const struct files *files, bool now)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < files->n; i++) {
        const struct file *file = files->items[i];
        if (file->kind != FILE_PLAIN)
            sum = mix(sum, now ? stamp_now(file->path) : file->stamp);
    }
    return sum;
}

/* ---- from the disk ---- */

/* Why an open file must not be used (allocated), or NULL. For credentials, systemd sets an access list for the service's
 * user, and its mask appears as group permissions. */
static char *refusal(const struct stat *st, const char *path, enum file_kind kind)
{
    unsigned others = is_credential(path) ? 037 : 077;
    if (!S_ISREG(st->st_mode))
        return xstrdup("is not a regular file");
    if (kind == FILE_SECRET && (st->st_mode & others) != 0)
        return xasprintf("can be read by others (mode %04o); restrict it with chmod 600",
                         (unsigned)(st->st_mode & 07777));
    if (kind == FILE_SECRET && st->st_uid != geteuid() && st->st_uid != 0)
        return xstrdup("belongs to another user");
    return NULL;
}

/* Reads the open file into the set; NULL with *ret_why. */
static struct file *read_open(struct files *files, int fd, const char *path, enum file_kind kind, size_t max,
                              char **ret_why)
{
    struct stat st;
    *ret_why =
        fstat(fd, &st) < 0 ? xasprintf("cannot be read: %s", strerror(errno)) : refusal(&st, path, kind);
    if (*ret_why != NULL)
        return NULL;
    char *data = data_alloc(max + 2, kind);
    long len = read_full(fd, data, max + 1);
    if (len < 0 || (size_t)len > max) {
        *ret_why = len < 0 ? xasprintf("cannot be read: %s", strerror((int)-len))
                           : xasprintf("is larger than %zu bytes", max);
        data_free(data, kind);
        return NULL;
    }
    struct file *file = add(files, path, kind, data, (size_t)len);
    file->stamp = stamp_of(&st);
    return file;
}

static struct file *read_from_disk(struct files *files, const char *path, enum file_kind kind, size_t max,
                                   char **ret_why)
{
    char *place = file_place(path, ret_why);
    if (place == NULL)
        return NULL;
    int fd = open(place, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    free(place);
    if (fd < 0) {
        *ret_why = xasprintf("cannot be read: %s", strerror(errno));
        return NULL;
    }
    struct file *file = read_open(files, fd, path, kind, max, ret_why);
    close(fd);
    return file;
}

const struct file *files_get(struct files *files, const char *path, enum file_kind kind, size_t max,
                             char **ret_why)
{
    struct file *file = find(files, path);
    *ret_why = NULL;
    if (files->mode == FILES_PLAIN_ONLY && kind != FILE_PLAIN)
        return NULL;
    if (file == NULL && files->mode == FILES_SEALED)
        *ret_why = xstrdup("was not passed to this worker");
    else if (file == NULL && files->n == FILES_MAX)
        *ret_why = xstrdup("exceeds the limit of 512 files");
    else if (file == NULL)
        file = read_from_disk(files, path, kind, max, ret_why);
    if (file != NULL)
        file->used = true;
    return file;
}

/* ---- secrets ---- */

char *secret_read(struct files *files, const char *path, size_t min_len, char **ret_why)
{
    const struct file *file = files_get(files, path, FILE_SECRET, SECRET_FILE_MAX, ret_why);
    if (file == NULL)
        return NULL;
    size_t len = file->len; /* without the line break that editors append */
    len -= len > 0 && file->data[len - 1] == '\n';
    len -= len > 0 && file->data[len - 1] == '\r';
    if (!is_visible(file->data, len))
        *ret_why = xstrdup("must contain one line of visible ASCII characters");
    else if (len < min_len)
        *ret_why = xasprintf("must contain at least %zu characters", min_len);
    return *ret_why == NULL ? vault_strndup(file->data, len) : NULL;
}

void files_wipe_secrets(struct files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        if (files->items[i]->kind == FILE_SECRET)
            explicit_bzero(files->items[i]->data, files->items[i]->len);
    }
}

void key_mark(const char *key, char out[static KEY_MARK_SIZE])
{
    sha256_hex(key, strlen(key), KEY_MARK_SIZE - 1, out);
}

/* ---- the next set ---- */

struct files *files_renew(const struct files *files, const char *path)
{
    struct files *renewed = files_new(FILES_ALL);
    for (size_t i = 0; i < files->n; i++) {
        const struct file *file = files->items[i];
        if (file->kind != FILE_PLAIN && (path == NULL || strcmp(file->path, path) == 0))
            continue;
        char *bytes = copy_bytes(file->data, file->len, file->kind);
        struct file *copy = add(renewed, file->path, file->kind, bytes, file->len);
        copy->stamp = file->stamp;
        copy->refused = file->refused != NULL ? xstrdup(file->refused) : NULL;
    }
    return renewed;
}

void files_prune(struct files *files)
{
    size_t kept = 0;
    for (size_t i = 0; i < files->n; i++) {
        if (files->items[i]->used)
            files->items[kept++] = files->items[i];
        else
            file_free(files->items[i]);
    }
    files->n = kept;
}

bool file_is_outdated(const struct file *file)
{
    return file->kind != FILE_PLAIN && (file->refused != NULL || file->stamp != stamp_now(file->path));
}

static void set_refused(struct file *file, char *why, uint64_t stamp)
{
    free(file->refused);
    file->refused = why;
    file->stamp = stamp;
}

void files_refuse(struct files *files, const char *path, char *why)
{
    set_refused(find(files, path), why, stamp_now(path));
}

void files_take_refusals(struct files *files, struct files *other)
{
    for (size_t i = 0; i < other->n; i++) {
        struct file *from = other->items[i], *to = find(files, from->path);
        if (to == NULL)
            continue;
        set_refused(to, from->refused, from->stamp);
        from->refused = NULL;
    }
}

bool files_do_without(struct files *files, const char *path, const char *why)
{
    struct file *file = find(files, path);
    bool is_without =
        file != NULL && file->len == 0 && (files->mode == FILES_SEALED || file->refused != NULL);
    if (is_without || files->mode != FILES_ALLOW_MISSING || (file == NULL && files->n == FILES_MAX))
        return is_without;
    if (file == NULL)
        file = add(files, path, FILE_SECRET, copy_bytes("", 0, FILE_SECRET), 0);
    explicit_bzero(file->data, file->len);
    file->len = 0;
    file->used = true;
    set_refused(file, xstrdup(why), stamp_now(path));
    return true;
}

size_t files_changed(const struct files *was, const struct files *is, const char **ret_first)
{
    size_t n = 0;
    for (size_t i = 0; i < is->n; i++) {
        const struct file *file = is->items[i], *old = find(was, file->path);
        if (file->kind == FILE_PLAIN ||
            (old != NULL && old->len == file->len && memcmp(old->data, file->data, file->len) == 0))
            continue;
        if (n++ == 0)
            *ret_first = file->path;
    }
    return n;
}

/* ---- to a worker ---- */

/* Writes without an intermediate copy, which would leave secrets in freed memory. */
static int write_image(const struct files *files, int fd)
{
    int result = write_full(fd, MAGIC, strlen(MAGIC));
    for (size_t i = 0; i < files->n && result == 0; i++) {
        const struct file *file = files->items[i];
        char *head = xasprintf("%d %zu %s\n", (int)file->kind, file->len, file->path);
        result = write_full(fd, head, strlen(head));
        if (result == 0)
            result = write_full(fd, file->data, file->len);
        free(head);
    }
    return result;
}

/* Pages of a memory file can be swapped out unless they are locked in a mapping. */
static void lock_pages(struct files_image *image)
{
    image->len = (size_t)lseek(image->fd, 0, SEEK_CUR);
    /* MAP_PRIVATE: kernels before 6.7 refuse shared mappings of files sealed against writing. */
    void *pages = mmap(NULL, image->len, PROT_READ, MAP_PRIVATE, image->fd, 0);
    image->pages = pages == MAP_FAILED ? NULL : pages;
    if (image->pages != NULL) {
        mlock(pages, image->len);
        madvise(pages, image->len, MADV_DONTDUMP);
    }
}

int files_seal(const struct files *files, struct files_image *ret_image)
{
    struct files_image image = {.fd = memfd_create("taskproxy-files", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    if (image.fd < 0)
        return -errno;
    int result = write_image(files, image.fd);
    if (result == 0 &&
        fcntl(image.fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        result = -errno;
    if (result < 0) {
        files_image_done(&image);
        return result;
    }
    lock_pages(&image);
    *ret_image = image;
    return 0;
}

void files_image_done(struct files_image *image)
{
    if (image->pages != NULL)
        munmap(image->pages, image->len);
    if (image->fd >= 0)
        close(image->fd);
    *image = (struct files_image){.fd = -1};
}

/* Reads the files after the magic line; false if the image is incomplete. */
static bool read_image(struct files *files, const char *at, const char *end)
{
    while (at < end && files->n < FILES_MAX) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL)
            return false;
        char *number, *path_at; /* both numbers end at a space before the end of the line */
        long kind = strtol(at, &number, 10);
        unsigned long len = strtoul(number, &path_at, 10);
        if (path_at >= line_end || *path_at != ' ' || len > (size_t)(end - line_end - 1))
            return false;
        path_at++;
        char *path = xstrndup(path_at, (size_t)(line_end - path_at));
        enum file_kind of = kind == FILE_SECRET ? FILE_SECRET : kind == FILE_LIVE ? FILE_LIVE : FILE_PLAIN;
        add(files, path, of, copy_bytes(line_end + 1, len, of), len);
        free(path);
        at = line_end + 1 + len;
    }
    return at == end;
}

struct files *files_unseal(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size < (off_t)strlen(MAGIC))
        return NULL;
    size_t len = (size_t)st.st_size;
    char *image = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (image == MAP_FAILED)
        return NULL;
    struct files *files = files_new(FILES_SEALED);
    bool whole =
        memcmp(image, MAGIC, strlen(MAGIC)) == 0 && read_image(files, image + strlen(MAGIC), image + len);
    munmap(image, len);
    if (whole)
        return files;
    files_free(files);
    return NULL;
}
