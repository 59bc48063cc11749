/* json: see json.h. */
#include "lib/json.h"

#include <stdlib.h>
#include <string.h>

#include "lib/scan.h"

/* ---- grammar ---- */

/* Why a token may not follow the one before it, or NULL. Only what json-c lets through. */
static const char *bad_pair(const char *before, const char *before_end, const char *start)
{
    if ((*start == '}' || *start == ']') && *before == ',')
        return "a comma before a closing bracket";
    if (*start == ':' && memmem(before, (size_t)(before_end - before), "\\u0000", 6) != NULL)
        return "a key with a NUL, where it would end";
    return NULL;
}

/* Refuses what json-c accepts outside its strict mode, which differs between versions: other tokens than those of
 * RFC 8259, and a comma at the end of a container. json-c's parser checks the rest of the grammar. */
static int check_tokens(struct scanner *s, size_t *ret_keys)
{
    const char *start, *before = s->at, *before_end = s->at;
    size_t keys = 0, tokens = 0;
    enum token token;
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

/* Comments become blanks, so that only the scanner decides what a comment is; line breaks stay for the line numbers. */
static char *blank_comments(const char *text, size_t len)
{
    char *copy = xcalloc(len + 1, 1), *gap = copy;
    memcpy(copy, text, len);
    struct scanner s = {.at = copy, .end = copy + len, .comments = true};
    enum token token;
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
        *ret_error = (struct json_error){.why = "a key stands twice in one object",
                                         .line = form == JSON_PLAIN ? 1 : scan_line_of_double(text, len)};
    json_tokener_free(tokener);
    if (ret_error->why == NULL)
        return doc;
    if (ret_error->line == 0)
        ret_error->line = scan_line_at(text, text + end);
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
        *ret_error =
            (struct json_error){.why = s.why, .line = scan_line_at(text, s.at < s.end ? s.at : s.end)};
    if (ret_error->why != NULL)
        return NULL;
    if (form == JSON_PLAIN)
        return parse(text, trimmed(text, len), max_depth, keys, form, ret_error);
    char *blank = blank_comments(text, len);
    struct json_object *doc = parse(blank, trimmed(blank, len), max_depth, keys, form, ret_error);
    free(blank);
    return doc;
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
