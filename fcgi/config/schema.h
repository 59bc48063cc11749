/* schema: reads a JSON file into a struct, driven by a table.
 *
 * A table has one row for each key: its name, type, offset in the struct, default, bounds and help. Parsing,
 * defaults, error messages, --print-config and the reference all come from it. An error names the file, the
 * line, the pointer and the allowed values. */
#ifndef SCHEMA_H
#define SCHEMA_H

#include "lib/buf.h"
#include "lib/files.h"
#include "lib/json.h"

enum { SCHEMA_NAME_MAX = 64, SCHEMA_LIST_MAX = 4096 };

enum schema_type {
    S_STRING,  /* char *              a string without control characters; length within min and max */
    S_ACCOUNT, /* char *              the name or number of a user or group; a number as its digits */
    S_PATH,    /* char *              a file name, relative to the file that names it, or a credential */
    S_SECRET, /* struct secret       the name of a file, which is read: a secret of at least `min` characters */
    S_DURATION, /* int64_t             milliseconds, written "250ms" */
    S_SIZE,     /* int64_t             bytes, written "64MiB" */
    S_INT,      /* int64_t */
    S_BOOL,     /* bool */
    S_ENUM,     /* int                 the index of the word in `words` */
    S_POINTER,  /* struct json_path    a JSON pointer in which "*" is every member of an array */
    S_SCALAR,   /* struct json_object * (string, integer, boolean, null) */
    S_STRINGS,  /* struct list of char * */
    S_SECRETS,  /* struct list of struct secret */
    S_POINTERS, /* struct list of struct json_path; a single pointer needs no array */
    S_SCALARS,  /* struct list of struct json_object * */
    S_OBJECT,   /* struct of `table`   in place */
    S_LIST,     /* struct list of structs of `table`, from an array */
    S_MAP,      /* struct list of structs of `table`, from an object: the first member, char *, is the key */
    S_MAP_TEXT, /* struct list of struct pair, from an object of strings */
    S_MAP_SECRET, /* struct list of struct named_secret, from an object of file names */
    S_TYPES
};

/* An array that the struct owns. */
struct list {
    void *items;
    size_t n;
};

/* The element of `size` bytes whose first member, a char *, is `name`; NULL: there is none. */
void *list_find(const struct list *list, size_t size, const char *name);

struct pair {
    char *name;
    char *value;
};

struct named_secret {
    char *name;
    struct secret secret;
};

struct table;

struct field {
    const char *name;
    enum schema_type type;
    bool nullable;        /* may be null although it has a default */
    bool optional;        /* S_SECRET: may have no text; see FILES_ALLOW_MISSING */
    size_t offset;        /* in the struct */
    const char *fallback; /* JSON text of the default; NULL: the key is required; "null": it is optional */
    int64_t min, max;     /* bounds of the value, or of its number of characters or members; both 0: none */
    const char *words;    /* S_ENUM: "open|teams" */
    const char *regex;    /* S_STRING, S_STRINGS: extended regular expression for each text; NULL: none */
    const char *must;     /* the reason to refuse a text that does not match it */
    const struct table *table; /* S_OBJECT, S_LIST, S_MAP */
    const char *help;          /* one line for the reference */

    /* A further check of the value, or of each member of a list or map; `value` is the member of the struct. Returns
     * NULL, or the reason to refuse it, static text. */
    const char *(*refuse)(const void *value);
};

struct table {
    const struct field *fields;
    size_t n_fields;
    size_t size;  /* of the struct */
    bool partial; /* other keys are ignored */
};

/* A row: FIELD("timeout", S_DURATION, struct conf_redis, timeout_ms, "\"50ms\"", "help", .min = 1, .max =
 * 60000) */
#define FIELD(word, kind, owner, member, default_text, help_text, ...)                                       \
    {                                                                                                        \
        .name = word, .type = kind, .offset = offsetof(owner, member), .fallback = default_text,             \
        .help = help_text, __VA_ARGS__                                                                       \
    }

/* A row whose key has the name of the member. */
#define MEMBER(kind, owner, member, ...) FIELD(#member, kind, owner, member, __VA_ARGS__)

#define REQUIRED NULL

#define TABLE(owner, rows)                                                                                   \
    {                                                                                                        \
        .fields = (rows), .n_fields = NELEMS(rows), .size = sizeof(owner)                                    \
    }

/* An absent S_OBJECT whose default is "null" leaves its struct zeroed. If the first field of the struct is
 * required, it shows whether the object was present. */

/* The file to read, and the set from which the secrets come that it names; both (ref). */
struct schema_source {
    const struct file *file;
    struct files *files;
};

/* Fills the zeroed struct `out`; 0, or -1 with *ret_error (allocated): "FILE:LINE: /pointer: reason".
 * In both cases, schema_done() frees the struct's contents. */
MUST_CHECK int schema_read(const struct table *table, const struct schema_source *source, void *out,
                           char **ret_error);
void schema_done(const struct table *table, void *out);

/* The same for a file that is a map with at least one member: `table` reads each member, and the first member
 * of its struct, a char *, receives the key. */
MUST_CHECK int schema_read_map(const struct table *table, const struct schema_source *source,
                               struct list *out, char **ret_error);
void schema_done_map(const struct table *table, struct list *out);

/* The message of an error that the table cannot detect, in the same form. The formatted text is "/pointer: reason". */
char *schema_error(const struct schema_source *source, const char *format, ...) PRINTF(2, 3);

/* For `refuse` of a string: keys of maps and other names have 1 to SCHEMA_NAME_MAX letters, digits, '_' and '-'. */
const char *schema_refuse_name(const void *name);

/* Prints the struct as JSON that reads as the same struct. */
void schema_print(const struct table *table, const void *in, struct buf *out);

/* The rows of the table and of all tables that it refers to, for the manual: one line per row, fields
 * separated by tabs: number of the table (0: `table` itself), name, type, nullable, min, max, words, default,
 * number of the table that the row refers to, help. A field that the row does not have is empty. */
void schema_describe(const struct table *table, struct buf *out);

#endif
