/* sanitize: see sanitize.h. */
#include "lib/sanitize.h"

#include <string.h>

int utf8_len(const char *at, const char *end)
{
    static const struct {
        unsigned char first, last, second_first, second_last;
        int len;
    } forms[] = {{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
                 {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
                 {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    const unsigned char *c = (const unsigned char *)at;
    if (at < end && c[0] < 0x80)
        return 1;
    for (size_t i = 0; at < end && i < NELEMS(forms); i++) {
        if (c[0] < forms[i].first || c[0] > forms[i].last)
            continue;
        if (end - at < forms[i].len || c[1] < forms[i].second_first || c[1] > forms[i].second_last)
            return 0;
        for (int k = 2; k < forms[i].len; k++) {
            if (c[k] < 0x80 || c[k] > 0xbf)
                return 0;
        }
        return forms[i].len;
    }
    return 0;
}

/* Whether a character has an effect besides its glyph: C0, DEL and C1 (some terminals execute them), and the marks, line
 * separators and overrides from U+200E to U+2069, which make text look like other text. */
static bool is_active(const char *at, int len)
{
    const unsigned char *c = (const unsigned char *)at;
    switch (len) {
    case 1:
        return c[0] < 0x20 || c[0] == 0x7f;
    case 2:
        return c[0] == 0xc2 && c[1] < 0xa0;
    case 3:
        return c[0] == 0xe2 &&
               ((c[1] == 0x80 && (c[2] == 0x8e || c[2] == 0x8f || (c[2] >= 0xa8 && c[2] <= 0xae))) ||
                (c[1] == 0x81 && c[2] >= 0xa6 && c[2] <= 0xa9));
    default:
        return false;
    }
}

/* The escape of one byte. */
static size_t escape(unsigned char c, char out[static 5])
{
    static const char named[] = "\nn\rr\tt", digits[] = "0123456789abcdef";
    const char *name = strchr(named, c);
    if (c != '\0' && name != NULL && (name - named) % 2 == 0) {
        memcpy(out, (const char[]){'\\', name[1]}, 2);
        return 2;
    }
    memcpy(out, (const char[]){'\\', 'x', digits[c >> 4], digits[c & 15]}, 4);
    return 4;
}

size_t sanitize_copy(char *out, size_t size, const char *text, size_t len)
{
    const char *end = text + len;
    char escaped[5];
    size_t used = 0;
    while (text < end) {
        int bytes = utf8_len(text, end);
        bool as_is = bytes > 0 && !is_active(text, bytes);
        size_t n = as_is ? (size_t)bytes : escape((unsigned char)*text, escaped);
        if (used + n >= size)
            break;
        memcpy(out + used, as_is ? text : escaped, n);
        used += n;
        text += as_is ? bytes : 1;
    }
    out[used] = '\0';
    return used;
}
