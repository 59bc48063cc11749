/* sanitize: see sanitize.h. */
#include "lib/sanitize.h"

#include <stdio.h>
#include <string.h>

enum { ESCAPE_SIZE = sizeof("\\x1b") };

/* Decodes one character. Returns its length, or 0 if it is invalid. */
static int decode(const char *at, const char *end, uint32_t *ret_character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* the first character of each length */
    if (at == end)
        return 0;
    uint32_t c = (unsigned char)*at;
    int len = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
    if (end - at < len)
        return 0;
    c &= 0xffU >> (len == 1 ? 0 : len);
    for (int i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (at[i] & 0x3f);
    }
    *ret_character = c;
    return c >= least[len] && c <= 0x10ffff && c >> 11 != 0xd800 >> 11 ? len : 0;
}

int utf8_len(const char *at, const char *end)
{
    uint32_t character;
    return decode(at, end, &character);
}

/* Whether a character has an effect besides its glyph: C0, DEL and C1 (some terminals execute them), and the marks, line
 * separators and overrides from U+200E to U+2069, which make text look like other text. */
static bool is_active(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

/* The escape of one byte; returns its length. */
static int escape(unsigned char byte, char out[static ESCAPE_SIZE])
{
    const char *name = byte == '\n' ? "\\n" : byte == '\r' ? "\\r" : byte == '\t' ? "\\t" : NULL;
    return name != NULL ? sprintf(out, "%s", name) : sprintf(out, "\\x%02x", byte);
}

size_t sanitize_copy(char *out, size_t size, const char *text, size_t len)
{
    const char *end = text + len;
    char escaped[ESCAPE_SIZE];
    uint32_t character;
    size_t used = 0;
    while (text < end) {
        int bytes = decode(text, end, &character);
        bool as_is = bytes > 0 && !is_active(character);
        size_t n = (size_t)(as_is ? bytes : escape((unsigned char)*text, escaped));
        if (used + n >= size)
            break;
        memcpy(out + used, as_is ? text : escaped, n);
        used += n;
        text += as_is ? bytes : 1;
    }
    out[used] = '\0';
    return used;
}
