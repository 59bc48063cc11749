/* json: see json.h. */
#include "lib/json.h"

#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/sanitize.h"

/* ---- tokens ---- */

static enum json_token scan_fail(struct scanner *s, const char *why)
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

/* At a byte of 0x80 or more: skips one character. json-c checks only the number of bytes. */
static bool scan_utf8(struct scanner *s)
{
    int len = utf8_len(s->at, s->end);
    s->at += len;
    return len > 0;
}

static enum json_token scan_string(struct scanner *s)
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

/* json-c silently clamps integers of more than 64 bits, so they are refused. */
static bool integer_fits(const char *start, const char *end)
{
    bool negative = *start == '-';
    start += negative;
    const char *limit = negative ? "9223372036854775808" : "18446744073709551615";
    size_t len = (size_t)(end - start), limit_len = strlen(limit);
    return len < limit_len || (len == limit_len && memcmp(start, limit, len) <= 0);
}

static enum json_token scan_number(struct scanner *s)
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

static enum json_token scan_word(struct scanner *s)
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

enum json_token scan(struct scanner *s, const char **ret_start)
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

/* The line number of a place in the text, from 1. */
static size_t line_at(const char *text, const char *at)
{
    size_t line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

/* ---- doubled keys ---- */

/* Skips a value. */
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

/* The next token if it is punctuation, or NUL. */
static char next_punctuation(struct scanner *s)
{
    const char *start;
    return scan(s, &start) == T_PUNCTUATION ? *start : '\0';
}

static const char *find_double(struct scanner *s);

/* After '{': finds the second of two equal keys, in this object or a nested one. */
static const char *find_double_in_object(struct scanner *s)
{
    const char *start, *found = NULL;
    struct buf keys; /* concatenated, as written, with their quotes */
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

/* The line of the second of two equal keys of one object. The text is well-formed. */
static size_t line_of_double(const char *text, size_t len)
{
    struct scanner s = {.at = text, .end = text + len};
    const char *found = find_double(&s);
    return found ? line_at(text, found) : 1;
}

/* ---- grammar ---- */

/* Why a token must not follow the one before it, or NULL. Checks only what json-c accepts. */
static const char *bad_pair(const char *before, const char *before_end, const char *start)
{
    if ((*start == '}' || *start == ']') && *before == ',')
        return "a comma before a closing bracket";
    if (*start == ':' && memmem(before, (size_t)(before_end - before), "\\u0000", 6) != NULL)
        return "a key that contains a NUL";
    return NULL;
}

/* Refuses what json-c accepts outside its strict mode, which differs between versions: other tokens than those of
 * RFC 8259, and a comma at the end of a container. json-c's parser checks the rest of the grammar. */
static int check_tokens(struct scanner *s, size_t *ret_keys)
{
    const char *start, *before = s->at, *before_end = s->at;
    size_t keys = 0, tokens = 0;
    enum json_token token;
    for (; (token = scan(s, &start)) > T_ERROR; tokens++) {
        if (token == T_PUNCTUATION) {
            keys += *start == ':';
            if (tokens > 0 && (s->why = bad_pair(before, before_end, start)) != NULL)
                return -1;
        }
        before = start;
        before_end = s->at;
    }
    if (token == T_END && tokens == 0)
        s->why = "an empty text";
    else if (token == T_END && tokens == 1)
        s->why = "neither an object nor an array";
    *ret_keys = keys;
    return s->why == NULL ? 0 : -1;
}

static size_t count_keys(struct json_object *value)
{
    size_t keys = 0;
    if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++)
            keys += count_keys(json_object_array_get_idx(value, i));
    } else if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, name, member)
        {
            (void)name;
            keys += 1 + count_keys(member);
        }
    }
    return keys;
}

/* Replaces comments with blanks, so that only the scanner decides what is a comment. Line breaks stay, for line numbers. */
static char *blank_comments(const char *text, size_t len)
{
    char *copy = xcalloc(len + 1, 1), *gap = copy;
    memcpy(copy, text, len);
    struct scanner s = {.at = copy, .end = copy + len, .comments = true};
    enum json_token token;
    do {
        const char *start;
        token = scan(&s, &start);
        for (; gap < start; gap++)
            *gap = *gap == '\n' ? '\n' : ' ';
        gap = copy + (s.at - copy);
    } while (token != T_END && token != T_ERROR);
    return copy;
}

/* ---- reading a document ---- */

static struct json_object *parse(const char *text, size_t len, int max_depth, size_t keys,
                                 enum json_form form, struct json_error *ret_error)
{
    struct json_tokener *tokener = json_tokener_new_ex(max_depth);
    json_tokener_set_flags(tokener,
                           JSON_TOKENER_VALIDATE_UTF8); /* strict, json-c 0.18 refuses all but ASCII */
    struct json_object *doc = json_tokener_parse_ex(tokener, text, (int)len);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    if (error == json_tokener_continue && len > 0 && doc == NULL)
        ret_error->why = "the text ends too early";
    else if (error != json_tokener_success)
        ret_error->why = json_tokener_error_desc(error);
    else if (end != len)
        ret_error->why = "something follows the value";
    else if (count_keys(doc) != keys)
        *ret_error = (struct json_error){.why = "a duplicate key",
                                         .line = form == JSON_PLAIN ? 1 : line_of_double(text, len)};
    json_tokener_free(tokener);
    if (ret_error->why == NULL)
        return doc;
    if (ret_error->line == 0)
        ret_error->line = line_at(text, text + end);
    json_object_put(doc);
    return NULL;
}

static size_t trimmed(const char *text, size_t len)
{
    while (len > 0 && (text[len - 1] == ' ' || (text[len - 1] >= '\t' && text[len - 1] <= '\r')))
        len--;
    return len;
}

struct json_object *json_read(const char *text, size_t len, int max_depth, enum json_form form,
                              struct json_error *ret_error)
{
    struct scanner s = {.at = text, .end = text + len, .comments = form == JSON_WITH_COMMENTS};
    size_t keys = 0;
    *ret_error = (struct json_error){0};
    if (len > INT32_MAX)
        *ret_error = (struct json_error){.why = "too large", .line = 1};
    else if (check_tokens(&s, &keys) < 0)
        *ret_error = (struct json_error){.why = s.why, .line = line_at(text, s.at < s.end ? s.at : s.end)};
    if (ret_error->why != NULL)
        return NULL;
    if (form == JSON_PLAIN)
        return parse(text, trimmed(text, len), max_depth, keys, form, ret_error);
    char *blank = blank_comments(text, len);
    struct json_object *doc = parse(blank, trimmed(blank, len), max_depth, keys, form, ret_error);
    free(blank);
    return doc;
}

/* ---- lines, for the errors of files that people write ---- */

/* After '{' or '[': moves to the member called `segment`; false if there is none. */
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

size_t json_line_of(const char *text, size_t len, const char *pointer)
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
