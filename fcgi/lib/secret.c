/* secret: see secret.h. */
#include "lib/secret.h"

#include <string.h>

enum { SECRET_FILE_MAX = 4096 };

/* Without the line break that editors put behind a line. */
static size_t line_len(const struct file *file)
{
    size_t len = file->len;
    if (len > 0 && file->data[len - 1] == '\n')
        len--;
    if (len > 0 && file->data[len - 1] == '\r')
        len--;
    return len;
}

static bool is_visible(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] >= 0x7f)
            return false;
    }
    return true;
}

char *secret_read(struct files *files, const char *path, size_t min_len, char **ret_why)
{
    const struct file *file = files_get(files, path, FILE_SECRET, SECRET_FILE_MAX, ret_why);
    if (file == NULL)
        return NULL;
    size_t len = line_len(file);
    if (!is_visible(file->data, len))
        *ret_why = xstrdup("must hold one line of visible ASCII characters");
    else if (len < min_len)
        *ret_why = xasprintf("must hold at least %zu characters", min_len);
    return *ret_why == NULL ? vault_strndup(file->data, len) : NULL;
}

void key_mark(const char *key, char out[static KEY_MARK_SIZE])
{
    unsigned char digest[32];
    sha256(key, strlen(key), digest);
    hex_encode(digest, KEY_MARK_SIZE / 2, out);
}
