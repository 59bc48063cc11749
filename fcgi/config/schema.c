/* schema: see schema.h.
 *
 * read_value calls the function for the type of the row. Errors are reported through fail(), which knows the pointer
 * to the value: go_in and go_out extend it and cut it back. */
#include "config/schema.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/files.h"

enum { MAX_DEPTH = 16, MAX_LIST = 4096, MAX_TEXT = 4096, TABLES_MAX = 32 };

#define ACCOUNT_MAX 4294967294LL /* the next number means none */

struct reader {
    const struct schema_source *source;
    char pointer[1024]; /* to the value being read */
    char *error;        /* allocated; NULL: no error so far */
};

static int read_value(struct reader *r, const struct field *field, struct json_object *value, void *place);
static int read_object(struct reader *r, const struct table *table, struct json_object *object, void *out);
static void print_object(const struct table *table, const void *in, int depth, struct buf *out);
static void print_value(const struct field *field, const void *place, int depth, struct buf *out);

/* Each type by its number: the name in schema_describe, the size in the struct, and of a list or map the type of
 * its elements, which are laid out as that type says; the struct of a map's element begins with the key. */
static const struct type {
    const char *name;
    size_t size;
    bool is_map;
    enum schema_type element;
} types[] = {
    [S_STRING] = {"string", sizeof(char *)},
    [S_ACCOUNT] = {"account", sizeof(char *)},
    [S_PATH] = {"path", sizeof(char *)},
    [S_DURATION] = {"duration", sizeof(int64_t)},
    [S_SIZE] = {"size", sizeof(int64_t)},
    [S_INT] = {"int", sizeof(int64_t)},
    [S_BOOL] = {"bool", sizeof(bool)},
    [S_ENUM] = {"enum", sizeof(int)},
    [S_POINTER] = {"pointer", sizeof(struct json_path)},
    [S_SCALAR] = {"scalar", sizeof(struct json_object *)},
    [S_OBJECT] = {"object"},
    [S_STRINGS] = {"strings", .element = S_STRING},
    [S_PATHS] = {"paths", .element = S_PATH},
    [S_POINTERS] = {"pointers", .element = S_POINTER},
    [S_SCALARS] = {"scalars", .element = S_SCALAR},
    [S_LIST] = {"list", .element = S_OBJECT},
    [S_MAP] = {"map", .is_map = true, .element = S_OBJECT},
    [S_MAP_TEXT] = {"map_text", .is_map = true, .element = S_STRING},
};

/* The row that an element of a list or map would have. `offset` is where its value is. */
static struct field element_of(const struct field *field)
{
    struct field element = *field;
    element.type = types[field->type].element;
    element.offset = field->type == S_MAP_TEXT ? offsetof(struct pair, value) : 0;
    return element;
}

static size_t element_size(const struct field *field)
{
    enum schema_type element = types[field->type].element;
    return field->type == S_MAP_TEXT ? sizeof(struct pair)
           : element == S_OBJECT     ? field->table->size
                                     : types[element].size;
}

static char *element_at(const struct field *field, const struct list *list, size_t i)
{
    return (char *)list->items + i * element_size(field);
}

/* Whether a row is a map's key, which precedes its struct and is not a member of the object. */
static bool is_key(const struct field *field)
{
    return field->name == NULL;
}

/* ---- errors ---- */

static char *place_error(const struct schema_source *source, const char *pointer, const char *what)
{
    size_t line = json_line_of(source->text, source->len, pointer);
    return xasprintf("%s:%zu: %s%s%s", source->path, line, pointer, *pointer ? ": " : "", what);
}

char *schema_error(const struct schema_source *source, const char *pointer, const char *format, ...)
{
    char what[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return place_error(source, pointer, what);
}

static int fail(struct reader *r, const char *format, ...) PRINTF(2, 3);

static int fail(struct reader *r, const char *format, ...)
{
    char what[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (r->error == NULL)
        r->error = place_error(r->source, r->pointer, what);
    return -1;
}

/* Extends the pointer; returns the length to go back to. */
static size_t go_in(struct reader *r, const char *name)
{
    size_t back = strlen(r->pointer);
    snprintf(r->pointer + back, sizeof(r->pointer) - back, "/%s", name);
    return back;
}

static size_t go_in_index(struct reader *r, size_t index)
{
    char name[24];
    snprintf(name, sizeof(name), "%zu", index);
    return go_in(r, name);
}

static void go_out(struct reader *r, size_t back)
{
    r->pointer[back] = '\0';
}

/* ---- single values ---- */

static bool out_of_bounds(const struct field *field, int64_t value)
{
    return (field->min != 0 || field->max != 0) && (value < field->min || value > field->max);
}

static bool has_control(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    }
    return false;
}

/* The text of a string, or NULL after an error. */
static const char *read_text(struct reader *r, struct json_object *value)
{
    const char *text = json_text(value);
    if (!json_object_is_type(value, json_type_string))
        fail(r, "must be a string, not %s", json_type_to_name(json_object_get_type(value)));
    else if (text == NULL || has_control(text))
        fail(r, "must not contain control characters");
    else if (strlen(text) > MAX_TEXT)
        fail(r, "must not be longer than %d characters", MAX_TEXT);
    else
        return text;
    return NULL;
}

static int read_string(struct reader *r, const struct field *field, struct json_object *value, char **place)
{
    const char *text = read_text(r, value);
    if (text == NULL)
        return -1;
    if (out_of_bounds(field, (int64_t)strlen(text)))
        return fail(r, "must have %lld to %lld characters", (long long)field->min, (long long)field->max);
    *place = xstrdup(text);
    return 0;
}

static int read_account(struct reader *r, const struct field *field, struct json_object *value, char **place)
{
    enum json_type type = json_object_get_type(value);
    int64_t number;
    if (type != json_type_string && type != json_type_int)
        return fail(r, "must be a name or a number");
    if (type == json_type_string && parse_int(json_text(value), &number) < 0)
        return read_string(r, field, value, place);
    number = json_object_get_int64(value);
    if (number < 0 || number > ACCOUNT_MAX)
        return fail(r, "must be a name, or a number from 0 to %lld", ACCOUNT_MAX);
    *place = xasprintf("%lld", (long long)number);
    return 0;
}

static int read_path(struct reader *r, struct json_object *value, char **place)
{
    const char *text = read_text(r, value);
    if (text == NULL)
        return -1;
    if (text[0] == '\0')
        return fail(r, "must be the name of a file");
    const char *slash = strrchr(r->source->path, '/');
    if (text[0] == '/' || slash == NULL || strncmp(text, FILES_CREDENTIAL, strlen(FILES_CREDENTIAL)) == 0)
        *place = xstrdup(text);
    else
        *place = xasprintf("%.*s/%s", (int)(slash - r->source->path), r->source->path, text);
    return 0;
}

/* Durations and sizes: text with a unit. */
struct measure {
    int (*parse)(const char *, int64_t *);
    void (*format)(int64_t, char *);
    const char *what;
};

static const struct measure duration_measure = {
    parse_duration, format_duration, "a duration: a number and ms, s, m, h or d, such as \"250ms\""};
static const struct measure size_measure = {parse_size, format_size,
                                            "a size: a number and B, KiB, MiB or GiB, such as \"64MiB\""};

static int read_measure(struct reader *r, const struct field *field, const struct measure *measure,
                        struct json_object *value, int64_t *place)
{
    const char *text = json_text(value);
    if (text == NULL || measure->parse(text, place) < 0)
        return fail(r, "must be %s", measure->what);
    if (!out_of_bounds(field, *place))
        return 0;
    char min[32], max[32];
    measure->format(field->min, min);
    measure->format(field->max, max);
    return fail(r, "must be from \"%s\" to \"%s\"", min, max);
}

static int read_int(struct reader *r, const struct field *field, struct json_object *value, int64_t *place)
{
    if (!json_object_is_type(value, json_type_int))
        return fail(r, "must be a whole number");
    *place = json_object_get_int64(value);
    if (out_of_bounds(field, *place))
        return fail(r, "must be from %lld to %lld", (long long)field->min, (long long)field->max);
    return 0;
}

static int read_bool(struct reader *r, struct json_object *value, bool *place)
{
    if (!json_object_is_type(value, json_type_boolean))
        return fail(r, "must be true or false");
    *place = json_object_get_boolean(value);
    return 0;
}

static int word_index(const char *words, const char *text)
{
    int index = 0;
    for (const char *word = words; *word != '\0'; index++) {
        size_t len = strcspn(word, "|");
        if (strlen(text) == len && memcmp(word, text, len) == 0)
            return index;
        word += len + (word[len] == '|');
    }
    return -1;
}

static int read_enum(struct reader *r, const struct field *field, struct json_object *value, int *place)
{
    const char *text = json_text(value), *words = field->words ? field->words : "";
    *place = text ? word_index(words, text) : -1;
    if (*place >= 0)
        return 0;
    char shown[256] = "";
    for (const char *word = words; *word != '\0';) {
        size_t len = strcspn(word, "|"), used = strlen(shown);
        snprintf(shown + used, sizeof(shown) - used, "%s\"%.*s\"", used ? ", " : "", (int)len, word);
        word += len + (word[len] == '|');
    }
    return fail(r, "must be one of %s", shown);
}

static int read_pointer(struct reader *r, struct json_object *value, struct json_path *place)
{
    const char *text = read_text(r, value);
    if (text == NULL)
        return -1;
    if (json_path_init(place, text) < 0)
        return fail(r, "\"%s\" is not a JSON pointer of 1 to %d segments, such as \"/data/status\"", text,
                    JSON_PATH_SEGMENTS);
    return 0;
}

/* ---- lists ---- */

static int read_scalar(struct reader *r, struct json_object *value, struct json_object **place)
{
    enum json_type type = json_object_get_type(value);
    if (type == json_type_array || type == json_type_object || type == json_type_double)
        return fail(r, "must be a string, a whole number, true, false or null");
    *place = json_object_get(value);
    return 0;
}

static int read_list(struct reader *r, const struct field *field, struct json_object *value,
                     struct list *place)
{
    const struct field element = element_of(field);
    size_t size = element_size(field);
    if (field->type == S_POINTERS && json_object_is_type(value, json_type_string)) {
        *place = (struct list){.items = xcalloc(1, size), .n = 1};
        return read_value(r, &element, value, place->items);
    }
    if (!json_object_is_type(value, json_type_array))
        return fail(r, "must be an array");
    size_t n = json_object_array_length(value);
    if (n > MAX_LIST)
        return fail(r, "must not have more than %d members", MAX_LIST);
    *place = (struct list){.items = xcalloc(n, size), .n = n};
    for (size_t i = 0; i < n; i++) {
        size_t back = go_in_index(r, i);
        if (read_value(r, &element, json_object_array_get_idx(value, i), element_at(field, place, i)) < 0)
            return -1;
        go_out(r, back);
    }
    return 0;
}

/* Names, the keys of maps, appear in paths, Redis keys and log lines. */
static bool good_name(const char *name)
{
    size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    return len > 0 && len <= 64 && name[len] == '\0';
}

static int read_map(struct reader *r, const struct field *field, struct json_object *value,
                    struct list *place)
{
    const struct field element = element_of(field);
    if (!json_object_is_type(value, json_type_object))
        return fail(r, "must be an object");
    *place = (struct list){.items = xcalloc((size_t)json_object_object_length(value), element_size(field))};
    json_object_object_foreach(value, name, member)
    {
        char *at = element_at(field, place, place->n);
        size_t back = go_in(r, name);
        if (!good_name(name))
            return fail(r, "a name must have 1 to 64 letters, digits, '_' and '-'");
        place->n++;
        *(char **)(void *)at = xstrdup(name);
        if (read_value(r, &element, member, at + element.offset) < 0)
            return -1;
        go_out(r, back);
    }
    return 0;
}

/* ---- objects ---- */

static int read_value(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    switch (field->type) {
    case S_STRING:
        return read_string(r, field, value, place);
    case S_ACCOUNT:
        return read_account(r, field, value, place);
    case S_PATH:
        return read_path(r, value, place);
    case S_DURATION:
        return read_measure(r, field, &duration_measure, value, place);
    case S_SIZE:
        return read_measure(r, field, &size_measure, value, place);
    case S_INT:
        return read_int(r, field, value, place);
    case S_BOOL:
        return read_bool(r, value, place);
    case S_ENUM:
        return read_enum(r, field, value, place);
    case S_POINTER:
        return read_pointer(r, value, place);
    case S_SCALAR:
        return read_scalar(r, value, place);
    case S_OBJECT:
        return read_object(r, field->table, value, place);
    default:
        return types[field->type].is_map ? read_map(r, field, value, place)
                                         : read_list(r, field, value, place);
    }
}

static int refuse_unknown(struct reader *r, const struct table *table, struct json_object *object)
{
    char words[2048] = "";
    for (size_t i = 0; i < table->n_fields; i++) {
        size_t used = strlen(words);
        if (!is_key(&table->fields[i]))
            snprintf(words + used, sizeof(words) - used, "%s%s", used ? "|" : "", table->fields[i].name);
    }
    json_object_object_foreach(object, name, member)
    {
        (void)member;
        if (word_index(words, name) >= 0)
            continue;
        go_in(r, name);
        char *near = nearest_word(name, words);
        fail(r, near ? "unknown key; did you mean \"%s\"?" : "unknown key", near);
        free(near);
        return -1;
    }
    return 0;
}

static int read_fallback(struct reader *r, const struct field *field, void *place)
{
    if (strcmp(field->fallback, "null") == 0)
        return 0;
    struct json_object *value = json_tokener_parse(field->fallback);
    int result = read_value(r, field, value, place);
    json_object_put(value);
    return result;
}

static int read_field(struct reader *r, const struct field *field, struct json_object *object, void *out)
{
    struct json_object *value;
    void *place = (char *)out + field->offset;
    bool there = json_object_object_get_ex(object, field->name, &value);
    if (!there && field->fallback == NULL)
        return fail(r, "the key \"%s\" is missing", field->name);
    size_t back = go_in(r, field->name);
    bool may_be_null = field->nullable || (field->fallback != NULL && strcmp(field->fallback, "null") == 0);
    int result = 0;
    if (!there)
        result = read_fallback(r, field, place);
    else if (value != NULL || !may_be_null)
        result = read_value(r, field, value, place);
    if (result == 0)
        go_out(r, back);
    return result;
}

static int read_object(struct reader *r, const struct table *table, struct json_object *object, void *out)
{
    if (!json_object_is_type(object, json_type_object))
        return fail(r, "must be an object");
    if (refuse_unknown(r, table, object) < 0)
        return -1;
    for (size_t i = 0; i < table->n_fields; i++) {
        if (!is_key(&table->fields[i]) && read_field(r, &table->fields[i], object, out) < 0)
            return -1;
    }
    return 0;
}

static int read_root(const struct field *root, const struct schema_source *source, void *out,
                     char **ret_error)
{
    struct json_error error;
    struct json_object *doc = json_read(source->text, source->len, MAX_DEPTH, JSON_WITH_COMMENTS, &error);
    if (doc == NULL) {
        *ret_error = xasprintf("%s:%zu: %s", source->path, error.line, error.why);
        return -1;
    }
    struct reader r = {.source = source};
    int result = read_value(&r, root, doc, out);
    json_object_put(doc);
    *ret_error = r.error;
    return result;
}

int schema_read(const struct table *table, const struct schema_source *source, void *out, char **ret_error)
{
    return read_root(&(struct field){.type = S_OBJECT, .table = table}, source, out, ret_error);
}

int schema_read_map(const struct table *table, const struct schema_source *source, struct list *out,
                    char **ret_error)
{
    return read_root(&(struct field){.type = S_MAP, .table = table}, source, out, ret_error);
}

/* ---- freeing ---- */

static void done_field(const struct field *field, void *place)
{
    const struct list *list = place;
    const struct field element = element_of(field);
    switch (field->type) {
    case S_DURATION:
    case S_SIZE:
    case S_INT:
    case S_BOOL:
    case S_ENUM:
        break;
    case S_STRING:
    case S_ACCOUNT:
    case S_PATH:
        free(*(char **)place);
        break;
    case S_POINTER:
        json_path_done(place);
        break;
    case S_SCALAR:
        json_object_put(*(struct json_object **)place);
        break;
    case S_OBJECT:
        schema_done(field->table, place);
        break;
    default:
        for (size_t i = 0; i < list->n; i++) {
            if (field->type == S_MAP_TEXT)
                free(*(char **)(void *)element_at(field, list, i));
            done_field(&element, element_at(field, list, i) + element.offset);
        }
        free(list->items);
    }
}

void schema_done(const struct table *table, void *out)
{
    for (size_t i = 0; i < table->n_fields; i++)
        done_field(&table->fields[i], (char *)out + table->fields[i].offset);
    memset(out, 0, table->size);
}

void schema_done_map(const struct table *table, struct list *out)
{
    done_field(&(struct field){.type = S_MAP, .table = table}, out);
    *out = (struct list){0};
}

/* ---- printing ---- */

static void print_text(struct buf *out, const char *text)
{
    if (text == NULL)
        buf_puts(out, "null");
    else
        buf_add_json_string(out, text, strlen(text));
}

/* A name in quotes, or a number without. */
static void print_account(struct buf *out, const char *text)
{
    int64_t number;
    if (text != NULL && parse_int(text, &number) == 0)
        buf_puts(out, text);
    else
        print_text(out, text);
}

static void print_word(const char *words, int index, struct buf *out)
{
    while (index-- > 0)
        words += strcspn(words, "|") + 1;
    buf_add_json_string(out, words, strcspn(words, "|"));
}

static void new_line(struct buf *out, int depth)
{
    buf_addf(out, "\n%*s", depth * 2, "");
}

static void print_list(const struct field *field, const struct list *list, int depth, struct buf *out)
{
    const struct field element = element_of(field);
    bool map = types[field->type].is_map;
    buf_putc(out, map ? '{' : '[');
    for (size_t i = 0; i < list->n; i++) {
        const char *at = element_at(field, list, i);
        if (i > 0)
            buf_putc(out, ',');
        new_line(out, depth + 1);
        if (map) {
            print_text(out, *(char *const *)(const void *)at);
            buf_puts(out, ": ");
        }
        print_value(&element, at + element.offset, depth + 1, out);
    }
    if (list->n > 0)
        new_line(out, depth);
    buf_putc(out, map ? '}' : ']');
}

/* Whether an optional object was left out: its struct is all zero. */
static bool is_absent(const struct field *field, const void *place)
{
    const char *bytes = place;
    if (field->fallback == NULL || strcmp(field->fallback, "null") != 0)
        return false;
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, field->table->size - 1) == 0;
}

static void print_value(const struct field *field, const void *place, int depth, struct buf *out)
{
    char text[32];
    switch (field->type) {
    case S_DURATION:
        format_duration(*(const int64_t *)place, text);
        print_text(out, text);
        break;
    case S_SIZE:
        format_size(*(const int64_t *)place, text);
        print_text(out, text);
        break;
    case S_INT:
        buf_addf(out, "%lld", (long long)*(const int64_t *)place);
        break;
    case S_BOOL:
        buf_puts(out, *(const bool *)place ? "true" : "false");
        break;
    case S_ENUM:
        print_word(field->words, *(const int *)place, out);
        break;
    case S_STRING:
    case S_PATH:
        print_text(out, *(char *const *)place);
        break;
    case S_ACCOUNT:
        print_account(out, *(char *const *)place);
        break;
    case S_POINTER:
        print_text(out, ((const struct json_path *)place)->text);
        break;
    case S_SCALAR:
        buf_puts(out, json_object_to_json_string(*(struct json_object *const *)place));
        break;
    case S_OBJECT:
        if (is_absent(field, place))
            buf_puts(out, "null");
        else
            print_object(field->table, place, depth, out);
        break;
    default:
        print_list(field, place, depth, out);
    }
}

static void print_object(const struct table *table, const void *in, int depth, struct buf *out)
{
    const char *separator = "";
    buf_putc(out, '{');
    for (size_t i = 0; i < table->n_fields; i++) {
        const struct field *field = &table->fields[i];
        if (is_key(field))
            continue;
        buf_puts(out, separator);
        separator = ",";
        new_line(out, depth + 1);
        print_text(out, field->name);
        buf_puts(out, ": ");
        print_value(field, (const char *)in + field->offset, depth + 1, out);
    }
    new_line(out, depth);
    buf_putc(out, '}');
}

void schema_print(const struct table *table, const void *in, struct buf *out)
{
    print_object(table, in, 0, out);
    buf_putc(out, '\n');
}

/* ---- describing the tables ---- */

/* The tables of one file, in the order in which they are met. */
struct tables {
    const struct table *items[TABLES_MAX];
    size_t n;
};

static size_t table_number(struct tables *seen, const struct table *table)
{
    size_t i = 0;
    while (i < seen->n && seen->items[i] != table)
        i++;
    if (i == TABLES_MAX)
        abort(); /* more tables than this program has */
    if (i == seen->n)
        seen->items[seen->n++] = table;
    return i;
}

static void describe_field(struct tables *seen, const struct field *field, struct buf *out)
{
    buf_addf(out, "%s\t%s\t%d\t%lld\t%lld\t%s\t%s\t", field->name, types[field->type].name, field->nullable,
             (long long)field->min, (long long)field->max, field->words ? field->words : "",
             field->fallback ? field->fallback : "");
    if (field->table != NULL)
        buf_add_int(out, (int64_t)table_number(seen, field->table));
    buf_addf(out, "\t%s\n", field->help);
}

void schema_describe(const struct table *table, struct buf *out)
{
    struct tables seen = {.items[0] = table, .n = 1};
    for (size_t i = 0; i < seen.n; i++) {
        for (size_t k = 0; k < seen.items[i]->n_fields; k++) {
            if (is_key(&seen.items[i]->fields[k]))
                continue;
            buf_addf(out, "%zu\t", i);
            describe_field(&seen, &seen.items[i]->fields[k], out);
        }
    }
}
