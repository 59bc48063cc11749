/* scan: see scan.h. */
#include "lib/scan.h"

#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/sanitize.h"

/* ---- tokens ---- */

static enum token scan_fail(struct scanner *s, const char *why)
{
    s->why = why;
    return T_ERROR;
}

/* Past a comment that starts here; false when there is none or it never ends. */
static bool skip_comment(struct scanner *s)
{
    if (!s->comments || s->end - s->at < 2 || s->at[0] != '/')
        return false;
    const char *stop;
    if (s->at[1] == '/') {
        stop = memchr(s->at, '\n', (size_t)(s->end - s->at));
        s->at = stop ? stop : s->end;
        return true;
    }
    if (s->at[1] != '*')
        return false;
    stop = memmem(s->at + 2, (size_t)(s->end - s->at) - 2, "*/", 2);
    if (stop == NULL)
        return false;
    s->at = stop + 2;
    return true;
}

static void skip_space(struct scanner *s)
{
    while (s->at < s->end) {
        char c = *s->at;
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
            s->at++;
        else if (!skip_comment(s))
            return;
    }
}

/* The four hex digits behind "\u", or -1. */
static int hex4(const char *at, const char *end)
{
    int value = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* At a backslash. Surrogates come in pairs, high before low, or the text has no meaning in UTF-8. */
static bool scan_escape(struct scanner *s)
{
    if (s->end - s->at < 2)
        return false;
    char c = s->at[1];
    if (c != 'u') {
        s->at += 2;
        return strchr("\"\\/bfnrt", c) != NULL && c != '\0';
    }
    int unit = hex4(s->at + 2, s->end);
    s->at += 6;
    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        return false;
    if (unit < 0xd800 || unit > 0xdbff)
        return true;
    if (s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u')
        return false;
    int low = hex4(s->at + 2, s->end);
    s->at += 6;
    return low >= 0xdc00 && low <= 0xdfff;
}

/* At a byte of 0x80 or more: past one character; json-c looks only at how many bytes there are. */
static bool scan_utf8(struct scanner *s)
{
    int len = utf8_len(s->at, s->end);
    s->at += len;
    return len > 0;
}

static enum token scan_string(struct scanner *s)
{
    s->at++;
    while (s->at < s->end) {
        unsigned char c = (unsigned char)*s->at;
        if (c == '"') {
            s->at++;
            return T_STRING;
        }
        if (c < 0x20)
            return scan_fail(s, "a control character inside a string");
        if (c < 0x80 && c != '\\')
            s->at++;
        else if (c == '\\' && !scan_escape(s))
            return scan_fail(s, "a bad escape sequence");
        else if (c >= 0x80 && !scan_utf8(s))
            return scan_fail(s, "bytes that are not UTF-8");
    }
    return scan_fail(s, "a string without an end");
}

static size_t scan_digits(struct scanner *s)
{
    const char *start = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return (size_t)(s->at - start);
}

static bool skip_any(struct scanner *s, const char *set)
{
    if (s->at == s->end || *s->at == '\0' || strchr(set, *s->at) == NULL)
        return false;
    s->at++;
    return true;
}

/* Integers past 64 bits would be clamped by json-c without a word, so they are refused. */
static bool integer_fits(const char *start, const char *end)
{
    bool negative = *start == '-';
    start += negative;
    const char *limit = negative ? "9223372036854775808" : "18446744073709551615";
    size_t len = (size_t)(end - start), limit_len = strlen(limit);
    return len < limit_len || (len == limit_len && memcmp(start, limit, len) <= 0);
}

static enum token scan_number(struct scanner *s)
{
    const char *start = s->at;
    bool integer = true;
    skip_any(s, "-");
    bool zero_first = s->at < s->end && *s->at == '0';
    size_t digits = scan_digits(s);
    if (digits == 0 || (zero_first && digits > 1))
        return scan_fail(s, "a malformed number");
    if (skip_any(s, ".")) {
        integer = false;
        if (scan_digits(s) == 0)
            return scan_fail(s, "a malformed number");
    }
    if (skip_any(s, "eE")) {
        integer = false;
        skip_any(s, "+-");
        if (scan_digits(s) == 0)
            return scan_fail(s, "a malformed number");
    }
    if (integer && !integer_fits(start, s->at))
        return scan_fail(s, "an integer of more than 64 bits");
    return T_NUMBER;
}

static enum token scan_word(struct scanner *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < NELEMS(words); i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(s->end - s->at) >= len && memcmp(s->at, words[i], len) == 0) {
            s->at += len;
            return T_WORD;
        }
    }
    return scan_fail(s, "something that is no JSON value");
}

enum token scan(struct scanner *s, const char **ret_start)
{
    skip_space(s);
    *ret_start = s->at;
    if (s->at == s->end)
        return T_END;
    char c = *s->at;
    if (c == '"')
        return scan_string(s);
    if (c == '-' || (c >= '0' && c <= '9'))
        return scan_number(s);
    if (c == '{' || c == '}' || c == '[' || c == ']' || c == ',' || c == ':') {
        s->at++;
        return T_PUNCTUATION;
    }
    return scan_word(s);
}

size_t scan_line_at(const char *text, const char *at)
{
    size_t line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

/* ---- places, for the errors of files that people write ---- */

/* At a value: past it. */
static void skip_value(struct scanner *s)
{
    const char *start;
    int depth = 0;
    do {
        if (scan(s, &start) != T_PUNCTUATION)
            continue;
        depth += *start == '{' || *start == '[';
        depth -= *start == '}' || *start == ']';
    } while (depth > 0 && s->at < s->end);
}

/* The punctuation that comes next; its place in *ret_start. */
static char next_punctuation(struct scanner *s)
{
    const char *start;
    return scan(s, &start) == T_PUNCTUATION ? *start : '\0';
}

static const char *find_double(struct scanner *s);

/* Behind the '{': the second of two equal keys, here or further in. */
static const char *find_double_in_object(struct scanner *s)
{
    const char *start, *found = NULL;
    struct buf keys; /* one after the other, each as it is written with its quotes */
    buf_init(&keys, SIZE_MAX - 1);
    while (found == NULL && scan(s, &start) == T_STRING) {
        size_t len = (size_t)(s->at - start);
        if (keys.len > 0 && memmem(keys.data, keys.len, start, len) != NULL)
            found = start;
        buf_add(&keys, start, len);
        if (found == NULL && next_punctuation(s) == ':')
            found = find_double(s);
        if (found == NULL && next_punctuation(s) != ',')
            break;
    }
    buf_done(&keys);
    return found;
}

static const char *find_double(struct scanner *s)
{
    const char *start, *found = NULL;
    if (scan(s, &start) != T_PUNCTUATION)
        return NULL;
    if (*start == '{')
        return find_double_in_object(s);
    do {
        struct scanner before = *s;
        if (next_punctuation(s) == ']')
            return NULL;
        *s = before;
        found = find_double(s);
    } while (found == NULL && next_punctuation(s) == ',');
    return found;
}

size_t scan_line_of_double(const char *text, size_t len)
{
    struct scanner s = {.at = text, .end = text + len};
    const char *found = find_double(&s);
    return found ? scan_line_at(text, found) : 1;
}

/* Behind '{' or '[': the scanner stands before the member called `segment`; false when there is none. */
static bool enter_member(struct scanner *s, bool object, const char *segment, size_t segment_len)
{
    for (size_t index = 0;; index++) {
        const char *start;
        bool match;
        if (object) {
            if (scan(s, &start) != T_STRING)
                return false;
            match =
                (size_t)(s->at - start) == segment_len + 2 && memcmp(start + 1, segment, segment_len) == 0;
            if (next_punctuation(s) != ':')
                return false;
        } else {
            match = index == strtoul(segment, NULL, 10);
        }
        if (match)
            return true;
        skip_value(s);
        if (next_punctuation(s) != ',')
            return false;
    }
}

size_t scan_line_of(const char *text, size_t len, const char *pointer)
{
    struct scanner s = {.at = text, .end = text + len, .comments = true};
    while (*pointer == '/') {
        const char *segment = pointer + 1;
        size_t segment_len = strcspn(segment, "/");
        char open = next_punctuation(&s);
        if ((open != '{' && open != '[') || !enter_member(&s, open == '{', segment, segment_len))
            break;
        pointer = segment + segment_len;
    }
    skip_space(&s);
    return scan_line_at(text, s.at);
}
