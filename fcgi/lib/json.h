/* json: strict reading of JSON on top of json-c.
 *
 * json-c accepts NaN, single quotes, comments, trailing commas, duplicate keys (the last wins) and clamps
 * numbers to 64 bits. Its strict mode is not used: it varies between versions, and 0.18's refuses every
 * string that is not ASCII. So the grammar of RFC 8259 is read here, in one pass, and json-c holds the tree,
 * decodes escapes and writes. Trees are json-c's: json_object_put() frees them. */
#ifndef JSON_H
#define JSON_H

#include <json-c/json.h>

#include "lib/util.h"

enum json_form {
    JSON_PLAIN,         /* RFC 8259 */
    JSON_WITH_COMMENTS, /* and comments of C and C++, for files that people write */
};

struct json_error {
    const char *why; /* static text */
    size_t line;     /* from 1 */
};

/* Parses the whole of `text`, at most `max_depth` containers deep; NULL with the reason. */
struct json_object *json_read(const char *text, size_t len, int max_depth, enum json_form form,
                              struct json_error *ret_error);

/* The line of the value at a JSON pointer, or of its innermost container that exists. The text is well-formed
 * and may have comments. */
size_t json_line_of(const char *text, size_t len, const char *pointer);

/* A parsed pointer. A segment "*" means every member of an array. */
struct json_path {
    size_t n_segments;
    char **segments; /* unescaped */
    char *text;      /* as configured */
};

enum { JSON_PATH_SEGMENTS = 16 };

/* RFC 6901, at most JSON_PATH_SEGMENTS deep. */
MUST_CHECK int json_path_init(struct json_path *path, const char *text);
void json_path_done(struct json_path *path);
bool json_path_is_star(const struct json_path *path, size_t segment);

/* Looks up a path. `indices` replace its stars, in order; NULL means the first member for each star. Returns
 * false if the member does not exist; a null member gives true and NULL. */
bool json_at(struct json_object *doc, const struct json_path *path, const size_t *indices,
             struct json_object **ret_value);

/* The lookup that json_at does for each segment. */
bool json_member(struct json_object *value, const char *segment, struct json_object **ret_member);

/* The text of a string; NULL if the value is not a string or contains a NUL. */
const char *json_text(struct json_object *value);

#endif
