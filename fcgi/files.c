/* files: see files.h.
 *
 * The memory file: a magic line, then for each file one header "KIND LENGTH PATH\n" and its bytes. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"

#define MAGIC "taskproxy files 1\n"

enum { FILES_MAX = 512, FILES_MAX_BYTES = 64 * 1024 * 1024 };

struct files {
    struct file *items[FILES_MAX];
    size_t n;
    bool sealed; /* from the master: nothing is read from the disk */
};

struct files *files_new(void)
{
    return xcalloc(1, sizeof(struct files));
}

static void file_free(struct file *file)
{
    if (file->kind == FILE_SECRET)
        explicit_bzero(file->data, file->len);
    free(file->data);
    free(file->path);
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

static struct file *add(struct files *files, const char *path, enum file_kind kind, char *data, size_t len)
{
    struct file *file = xcalloc(1, sizeof(*file));
    *file = (struct file){.path = xstrdup(path), .data = data, .len = len, .kind = kind};
    files->items[files->n++] = file;
    return file;
}

/* Why an open file may not be used, or NULL. Allocated. */
static char *refusal(int fd, enum file_kind kind, size_t max)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return xasprintf("cannot be read: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return xstrdup("is not a regular file");
    if (st.st_size < 0 || (size_t)st.st_size > max)
        return xasprintf("is larger than %zu bytes", max);
    if (kind == FILE_SECRET && (st.st_mode & 077) != 0)
        return xasprintf("may be read by others (mode %04o): a secret is its owner's alone, chmod 600",
                         (unsigned)(st.st_mode & 07777));
    if (kind == FILE_SECRET && st.st_uid != geteuid() && st.st_uid != 0)
        return xstrdup("belongs to another user");
    return NULL;
}

static struct file *read_from_disk(struct files *files, const char *path, enum file_kind kind, size_t max,
                                   char **ret_why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        *ret_why = xasprintf("cannot be read: %s", strerror(errno));
        return NULL;
    }
    struct file *file = NULL;
    char *why = refusal(fd, kind, max);
    if (why == NULL) {
        char *data = xcalloc(max + 2, 1);
        long len = read_full(fd, data, max + 1);
        if (len >= 0 && (size_t)len <= max) {
            file = add(files, path, kind, data, (size_t)len);
        } else {
            why = len < 0 ? xasprintf("cannot be read: %s", strerror((int)-len))
                          : xasprintf("is larger than %zu bytes", max);
            explicit_bzero(data, max + 2);
            free(data);
        }
    }
    close(fd);
    *ret_why = why;
    return file;
}

const struct file *files_get(struct files *files, const char *path, enum file_kind kind, size_t max,
                             char **ret_why)
{
    *ret_why = NULL;
    for (size_t i = 0; i < files->n; i++) {
        if (strcmp(files->items[i]->path, path) == 0)
            return files->items[i];
    }
    if (files->sealed || files->n == FILES_MAX) {
        *ret_why = xstrdup(files->sealed ? "was not handed to this worker" : "is one file too many");
        return NULL;
    }
    return read_from_disk(files, path, kind, max, ret_why);
}

int files_seal(const struct files *files)
{
    struct buf image;
    buf_init(&image, FILES_MAX_BYTES);
    buf_puts(&image, MAGIC);
    for (size_t i = 0; i < files->n; i++) {
        const struct file *file = files->items[i];
        buf_addf(&image, "%d %zu %s\n", (int)file->kind, file->len, file->path);
        buf_add(&image, file->data, file->len);
    }
    int fd = image.failed ? -1 : memfd_create("taskproxy-files", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int result = image.failed ? -EFBIG : fd < 0 ? -errno : write_full(fd, image.data, image.len);
    explicit_bzero(image.data, image.len);
    buf_done(&image);
    if (result == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        result = -errno;
    if (result == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return result;
}

/* The files behind the magic line; false when the image is not whole. */
static bool read_image(struct files *files, const char *at, const char *end)
{
    while (at < end && files->n < FILES_MAX) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL)
            return false;
        char *number, *path_at; /* both numbers end at a blank, which stands before the line's end */
        long kind = strtol(at, &number, 10);
        unsigned long len = strtoul(number, &path_at, 10);
        if (path_at >= line_end || *path_at != ' ' || len > (size_t)(end - line_end - 1))
            return false;
        path_at++;
        char *path = xstrndup(path_at, (size_t)(line_end - path_at));
        char *data = xcalloc(len + 1, 1);
        memcpy(data, line_end + 1, len);
        add(files, path, kind == FILE_SECRET ? FILE_SECRET : FILE_PLAIN, data, len);
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
    struct files *files = files_new();
    files->sealed = true;
    bool whole =
        memcmp(image, MAGIC, strlen(MAGIC)) == 0 && read_image(files, image + strlen(MAGIC), image + len);
    munmap(image, len);
    if (whole)
        return files;
    files_free(files);
    return NULL;
}
