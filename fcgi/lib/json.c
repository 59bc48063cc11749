/* json: see json.h. */
#include "lib/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/sanitize.h"

/* ---- tokens ---- */

struct scanner {
    const char *at;
    const char *end;
    const char *start; /* of the last token, which ends at `at` */
    const char *why;   /* the first error, static text */
    bool comments;     /* C and C++ comments are skipped */
};

/* Brackets, commas and colons are tokens by their own character. */
enum { T_END, T_ERROR, T_STRING, T_NUMBER, T_WORD };

static int scan_fail(struct scanner *s, const char *why)
{
    s->why = why;
    return T_ERROR;
}

/* Skips a comment; false if none starts here or it does not end. */
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

/* The four hex digits after "\u", or -1. */
static int hex4(const char *at, const char *end)
{
    char digits[5] = "";
    if (end - at < 4)
        return -1;
    memcpy(digits, at, 4);
    return strspn(digits, "0123456789abcdefABCDEF") == 4 ? (int)strtol(digits, NULL, 16) : -1;
}

/* At a backslash. A surrogate must be part of a pair, high before low; otherwise it has no UTF-8 form. */
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

/* At a byte of 0x80 or more: skips one character. */
static bool scan_utf8(struct scanner *s)
{
    int len = utf8_len(s->at, s->end);
    s->at += len;
    return len > 0;
}

static int scan_string(struct scanner *s)
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
    return scan_fail(s, "an unterminated string");
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

static int scan_number(struct scanner *s)
{
    skip_any(s, "-");
    bool zero_first = s->at < s->end && *s->at == '0';
    size_t digits = scan_digits(s);
    if (digits == 0 || (zero_first && digits > 1))
        return scan_fail(s, "a malformed number");
    if (skip_any(s, ".") && scan_digits(s) == 0)
        return scan_fail(s, "a malformed number");
    if (skip_any(s, "eE")) {
        skip_any(s, "+-");
        if (scan_digits(s) == 0)
            return scan_fail(s, "a malformed number");
    }
    return T_NUMBER;
}

static int scan_word(struct scanner *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < NELEMS(words); i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(s->end - s->at) >= len && memcmp(s->at, words[i], len) == 0) {
            s->at += len;
            return T_WORD;
        }
    }
    return scan_fail(s, "not a JSON value");
}

/* The next token. */
static int scan(struct scanner *s)
{
    skip_space(s);
    s->start = s->at;
    if (s->at == s->end)
        return T_END;
    char c = *s->at;
    if (c == '"')
        return scan_string(s);
    if (c == '-' || (c >= '0' && c <= '9'))
        return scan_number(s);
    return skip_any(s, "{}[],:") ? c : scan_word(s);
}

/* The line number of a place in the text, from 1. */
static size_t line_at(const char *text, const char *at)
{
    size_t line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

/* ---- documents ---- */

struct reader {
    struct scanner s;
    struct json_tokener *tokener; /* decodes strings that hold escapes */
    int depth;                    /* containers that may still be opened */
};

static bool read_value(struct reader *r, int token, struct json_object **ret_value);

/* Refuses an unexpected token. An error of the scanner takes precedence. */
static bool refuse(struct reader *r, int token, const char *why)
{
    if (token != T_ERROR)
        r->s.why = token == T_END ? "unexpected end of file" : why;
    return false;
}

static struct json_object *read_string(struct reader *r)
{
    const char *start = r->s.start;
    int len = (int)(r->s.at - start);
    if (memchr(start, '\\', (size_t)len) == NULL)
        return json_object_new_string_len(start + 1, len - 2);
    json_tokener_reset(r->tokener);
    return json_tokener_parse_ex(r->tokener, start, len);
}

/* Doubles keep their text. json-c silently clamps integers of more than 64 bits, so they are refused. */
static bool read_number(struct reader *r, struct json_object **ret_value)
{
    char *text = xstrndup(r->s.start, (size_t)(r->s.at - r->s.start));
    errno = 0;
    if (strpbrk(text, ".eE") != NULL) {
        *ret_value = json_object_new_double_s(strtod(text, NULL), text);
        errno = 0;
    } else if (text[0] == '-') {
        *ret_value = json_object_new_int64(strtoll(text, NULL, 10));
    } else {
        uint64_t value = strtoull(text, NULL, 10);
        *ret_value =
            value <= INT64_MAX ? json_object_new_int64((int64_t)value) : json_object_new_uint64(value);
    }
    free(text);
    if (errno == 0)
        return true;
    json_object_put(*ret_value);
    return refuse(r, T_NUMBER, "an integer of more than 64 bits");
}

/* Reads a key, a colon and a value; `token` is the key. */
static bool read_member(struct reader *r, int token, struct json_object *object)
{
    if (token != T_STRING)
        return refuse(r, token, "a key that is not a string");
    struct json_object *name = read_string(r), *value;
    const char *key = json_text(name);
    bool good = false;
    if (key == NULL)
        refuse(r, token, "a key that contains a NUL");
    else if (json_object_object_get_ex(object, key, NULL))
        refuse(r, token, "a duplicate key");
    else if ((token = scan(&r->s)) != ':')
        refuse(r, token, "a key without a colon");
    else
        good = read_value(r, scan(&r->s), &value);
    if (good)
        json_object_object_add_ex(object, key, value, JSON_C_OBJECT_ADD_KEY_IS_NEW);
    json_object_put(name);
    return good;
}

static bool read_element(struct reader *r, int token, struct json_object *array)
{
    struct json_object *value;
    return read_value(r, token, &value) && json_object_array_add(array, value) == 0;
}

/* Reads up to the closing bracket. */
static bool read_members(struct reader *r, struct json_object *container, int close)
{
    int token = scan(&r->s);
    if (token == close)
        return true;
    for (;; token = scan(&r->s)) {
        if (close == '}' ? !read_member(r, token, container) : !read_element(r, token, container))
            return false;
        token = scan(&r->s);
        if (token == close)
            return true;
        if (token != ',')
            return refuse(r, token, "expected a comma or the closing bracket");
    }
}

static bool read_container(struct reader *r, int open, struct json_object **ret_value)
{
    if (r->depth == 0)
        return refuse(r, open, "too many nested containers");
    struct json_object *container = open == '{' ? json_object_new_object() : json_object_new_array();
    r->depth--;
    bool whole = read_members(r, container, open == '{' ? '}' : ']');
    r->depth++;
    if (whole)
        *ret_value = container;
    else
        json_object_put(container);
    return whole;
}

/* The value that begins with this token. */
static bool read_value(struct reader *r, int token, struct json_object **ret_value)
{
    switch (token) {
    case '{':
    case '[':
        return read_container(r, token, ret_value);
    case T_STRING:
        *ret_value = read_string(r);
        return true;
    case T_NUMBER:
        return read_number(r, ret_value);
    case T_WORD:
        *ret_value = *r->s.start == 'n' ? NULL : json_object_new_boolean(*r->s.start == 't');
        return true;
    default:
        return refuse(r, token, "unexpected comma, colon or closing bracket");
    }
}

static bool read_document(struct reader *r, struct json_object **ret_doc)
{
    int token = scan(&r->s);
    if (token >= T_STRING && token <= T_WORD)
        r->s.why = "expected an object or an array";
    else if (read_value(r, token, ret_doc) && (token = scan(&r->s)) != T_END)
        refuse(r, token, "unexpected text after the value");
    return r->s.why == NULL;
}

struct json_object *json_read(const char *text, size_t len, int max_depth, enum json_form form,
                              struct json_error *ret_error)
{
    struct reader r = {.s = {.at = text, .end = text + len, .comments = form == JSON_WITH_COMMENTS},
                       .depth = max_depth};
    struct json_object *doc = NULL;
    r.tokener = json_tokener_new();
    bool good = read_document(&r, &doc);
    json_tokener_free(r.tokener);
    *ret_error = (struct json_error){.why = r.s.why, .line = good ? 0 : line_at(text, r.s.start)};
    if (good)
        return doc;
    json_object_put(doc);
    return NULL;
}

/* ---- lines, for the errors of files that people write ---- */

/* Skips a value. */
static void skip_value(struct scanner *s)
{
    int depth = 0;
    do {
        int token = scan(s);
        depth += token == '{' || token == '[';
        depth -= token == '}' || token == ']';
    } while (depth > 0 && s->at < s->end);
}

/* After '{' or '[': moves to the member called `segment`; false if there is none. */
static bool enter_member(struct scanner *s, bool object, const char *segment, size_t segment_len)
{
    for (size_t index = 0;; index++) {
        bool match = index == strtoul(segment, NULL, 10);
        if (object) {
            if (scan(s) != T_STRING)
                return false;
            match = (size_t)(s->at - s->start) == segment_len + 2 &&
                    memcmp(s->start + 1, segment, segment_len) == 0;
            if (scan(s) != ':')
                return false;
        }
        if (match)
            return true;
        skip_value(s);
        if (scan(s) != ',')
            return false;
    }
}

size_t json_line_of(const char *text, size_t len, const char *pointer)
{
    struct scanner s = {.at = text, .end = text + len, .comments = true};
    while (*pointer == '/') {
        const char *segment = pointer + 1;
        size_t segment_len = strcspn(segment, "/");
        int open = scan(&s);
        if ((open != '{' && open != '[') || !enter_member(&s, open == '{', segment, segment_len))
            break;
        pointer = segment + segment_len;
    }
    skip_space(&s);
    return line_at(text, s.at);
}

/* ---- paths ---- */

/* "~1" is '/', "~0" is '~', nothing else may follow a '~'. */
static char *unescape_segment(const char *text, size_t len)
{
    char *segment = xstrndup(text, len), *to = segment;
    for (const char *from = segment; *from != '\0'; from++) {
        if (*from != '~') {
            *to++ = *from;
        } else if (from[1] == '0' || from[1] == '1') {
            *to++ = *++from == '0' ? '~' : '/';
        } else {
            free(segment);
            return NULL;
        }
    }
    *to = '\0';
    return segment;
}

int json_path_init(struct json_path *path, const char *text)
{
    *path =
        (struct json_path){.segments = xcalloc(JSON_PATH_SEGMENTS, sizeof(char *)), .text = xstrdup(text)};
    while (*text == '/' && path->n_segments < JSON_PATH_SEGMENTS) {
        size_t len = strcspn(++text, "/");
        char *segment = unescape_segment(text, len);
        if (segment == NULL)
            break;
        path->segments[path->n_segments++] = segment;
        text += len;
    }
    if (*text == '\0' && path->n_segments > 0)
        return 0;
    json_path_done(path);
    return -1;
}

void json_path_done(struct json_path *path)
{
    for (size_t i = 0; i < path->n_segments; i++)
        free(path->segments[i]);
    free(path->segments);
    free(path->text);
    *path = (struct json_path){0};
}

bool json_path_is_star(const struct json_path *path, size_t segment)
{
    return strcmp(path->segments[segment], "*") == 0;
}

static bool array_member(struct json_object *array, size_t index, struct json_object **ret_member)
{
    if (index >= json_object_array_length(array))
        return false;
    *ret_member = json_object_array_get_idx(array, index);
    return true;
}

bool json_member(struct json_object *value, const char *segment, struct json_object **ret_member)
{
    if (json_object_is_type(value, json_type_object))
        return json_object_object_get_ex(value, segment, ret_member);
    int64_t index;
    if (!json_object_is_type(value, json_type_array) || parse_int(segment, &index) < 0)
        return false;
    return array_member(value, (size_t)index, ret_member);
}

bool json_at(struct json_object *doc, const struct json_path *path, const size_t *indices,
             struct json_object **ret_value)
{
    size_t star = 0;
    struct json_object *value = doc;
    for (size_t i = 0; i < path->n_segments; i++) {
        bool found;
        if (json_path_is_star(path, i))
            found = json_object_is_type(value, json_type_array) &&
                    array_member(value, indices ? indices[star++] : 0, &value);
        else
            found = json_member(value, path->segments[i], &value);
        if (!found)
            return false;
    }
    *ret_value = value;
    return true;
}

const char *json_text(struct json_object *value)
{
    if (!json_object_is_type(value, json_type_string))
        return NULL;
    const char *text = json_object_get_string(value);
    return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}
