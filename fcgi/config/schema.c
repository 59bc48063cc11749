/* schema: see schema.h.
 *
 * read_value calls the function for the type of the row, then the row's own check. Errors are reported through fail(),
 * which knows the pointer to the value: go_in and go_out extend it and cut it back. */
#include "config/schema.h"

#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16, MAX_TEXT = 4096, SECRET_LEN_MIN = 8, TABLES_MAX = 32 };

#define ACCOUNT_MAX 4294967294LL /* the next number means none */

struct reader {
    const struct schema_source *source;
    char pointer[1024]; /* to the value being read */
    char *error;        /* allocated; NULL: no error so far */
};

/* The types by their numbers. The elements of a list or map are laid out as their type says; the struct of a map's
 * element begins with the key. */
static const struct type {
    const char *name; /* in schema_describe */
    size_t size;      /* in the struct; of a list or map, 0 */
    int (*read)(struct reader *r, const struct field *field, struct json_object *value, void *place);
    enum schema_type element; /* of a list or map */
    bool is_map;
} types[S_TYPES];

static struct json_object *to_json(const struct field *field, const void *place);

/* Whether the elements of a map are a name and a single value, such as struct pair. */
static bool has_names(const struct field *field)
{
    return types[field->type].is_map && types[field->type].element != S_OBJECT;
}

/* The row that an element of a list or map would have. `offset` is where its value is. */
static struct field element_of(const struct field *field)
{
    struct field element = *field;
    element.type = types[field->type].element;
    element.offset = has_names(field) ? sizeof(char *) : 0;
    element.min = element.max = 0; /* they limit the number of elements */
    return element;
}

static size_t element_size(const struct field *field)
{
    enum schema_type element = types[field->type].element;
    if (element == S_OBJECT)
        return field->table->size;
    return types[element].size + (has_names(field) ? sizeof(char *) : 0);
}

static char *element_at(const struct field *field, const struct list *list, size_t i)
{
    return (char *)list->items + i * element_size(field);
}

void *list_find(const struct list *list, size_t size, const char *name)
{
    for (size_t i = 0; i < list->n; i++) {
        void *element = (char *)list->items + i * size;
        if (strcmp(*(char **)element, name) == 0)
            return element;
    }
    return NULL;
}

/* ---- errors ---- */

static char *place_error(const struct schema_source *source, const char *pointer, const char *what)
{
    const struct file *file = source->file;
    size_t line = json_line_of(file->data, file->len, pointer);
    return xasprintf("%s:%zu: %s%s%s", file->path, line, pointer, *pointer ? ": " : "", what);
}

char *schema_error(const struct schema_source *source, const char *format, ...)
{
    char text[1024], *what = text;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    const char *pointer = strsep(&what, ":");
    return place_error(source, pointer, what + 1);
}

#define fail(r, ...) fail_for(r, xasprintf(__VA_ARGS__))

static int fail_for(struct reader *r, char *why)
{
    r->error = place_error(r->source, r->pointer, why);
    free(why);
    return -1;
}

/* Extends the pointer; returns the length to go back to. */
static size_t go_in(struct reader *r, const char *name)
{
    size_t back = strlen(r->pointer);
    snprintf(r->pointer + back, sizeof(r->pointer) - back, "/%s", name);
    return back;
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

static int read_string(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    const char *text = read_text(r, value);
    if (text == NULL)
        return -1;
    if (out_of_bounds(field, (int64_t)strlen(text)))
        return fail(r, "must have %lld to %lld characters", (long long)field->min, (long long)field->max);
    *(char **)place = xstrdup(text);
    return 0;
}

static int read_account(struct reader *r, const struct field *field, struct json_object *value, void *place)
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
    *(char **)place = xasprintf("%lld", (long long)number);
    return 0;
}

static int read_path(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    (void)field;
    const char *text = read_text(r, value), *own = r->source->file->path;
    if (text == NULL)
        return -1;
    if (text[0] == '\0')
        return fail(r, "must be the name of a file");
    const char *slash = strrchr(own, '/');
    if (text[0] == '/' || slash == NULL || strncmp(text, FILES_CREDENTIAL, strlen(FILES_CREDENTIAL)) == 0)
        *(char **)place = xstrdup(text);
    else
        *(char **)place = xasprintf("%.*s/%s", (int)(slash - own), own, text);
    return 0;
}

static int read_secret(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    struct secret *secret = place;
    char *why;
    if (read_path(r, field, value, &secret->path) < 0)
        return -1;
    size_t least = field->min > 0 ? (size_t)field->min : SECRET_LEN_MIN;
    secret->text = secret_read(r->source->files, secret->path, least, &why);
    if (secret->text != NULL || why == NULL)
        return 0;
    fail(r, "\"%s\" %s", secret->path, why);
    free(why);
    if (!field->optional || !files_do_without(r->source->files, secret->path, r->error))
        return -1;
    free(r->error);
    r->error = NULL;
    return 0;
}

/* Durations and sizes: text with a unit. */
static const struct {
    int (*parse)(const char *, int64_t *);
    void (*format)(int64_t, char *);
    const char *what;
} measures[] = {
    [S_DURATION] = {parse_duration, format_duration,
                    "a duration: a number and ms, s, m, h or d, such as \"250ms\""},
    [S_SIZE] = {parse_size, format_size, "a size: a number and B, KiB, MiB or GiB, such as \"64MiB\""},
};

static int read_measure(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    const char *text = json_text(value);
    if (text == NULL || measures[field->type].parse(text, place) < 0)
        return fail(r, "must be %s", measures[field->type].what);
    if (!out_of_bounds(field, *(int64_t *)place))
        return 0;
    char min[32], max[32];
    measures[field->type].format(field->min, min);
    measures[field->type].format(field->max, max);
    return fail(r, "must be from \"%s\" to \"%s\"", min, max);
}

static int read_int(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    if (!json_object_is_type(value, json_type_int))
        return fail(r, "must be a whole number");
    int64_t number = json_object_get_int64(value);
    *(int64_t *)place = number;
    if (out_of_bounds(field, number))
        return fail(r, "must be from %lld to %lld", (long long)field->min, (long long)field->max);
    return 0;
}

static int read_bool(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    (void)field;
    if (!json_object_is_type(value, json_type_boolean))
        return fail(r, "must be true or false");
    *(bool *)place = json_object_get_boolean(value);
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

static int read_enum(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    const char *text = json_text(value), *words = field->words;
    int index = text ? word_index(words, text) : -1;
    *(int *)place = index;
    if (index >= 0)
        return 0;
    char shown[256] = "";
    for (const char *word = words; *word != '\0';) {
        size_t len = strcspn(word, "|"), used = strlen(shown);
        snprintf(shown + used, sizeof(shown) - used, "%s\"%.*s\"", used ? ", " : "", (int)len, word);
        word += len + (word[len] == '|');
    }
    return fail(r, "must be one of %s", shown);
}

static int read_pointer(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    (void)field;
    const char *text = read_text(r, value);
    if (text == NULL)
        return -1;
    if (json_path_init(place, text) < 0)
        return fail(r, "\"%s\" is not a JSON pointer of 1 to %d segments, such as \"/data/status\"", text,
                    JSON_PATH_SEGMENTS);
    return 0;
}

static int read_scalar(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    (void)field;
    enum json_type type = json_object_get_type(value);
    if (type == json_type_array || type == json_type_object || type == json_type_double)
        return fail(r, "must be a string, a whole number, true, false or null");
    *(struct json_object **)place = json_object_get(value);
    return 0;
}

/* ---- lists ---- */

static bool matches(const char *text, const char *expression)
{
    regex_t regex;
    if (regcomp(&regex, expression, REG_EXTENDED | REG_NOSUB) != 0)
        abort(); /* a mistake in a table */
    bool match = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return match;
}

static int read_value(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    if (types[field->type].read(r, field, value, place) < 0)
        return -1;
    if (field->type == S_STRING && field->regex != NULL && !matches(*(char **)place, field->regex))
        return fail(r, "%s", field->must);
    const char *why = field->refuse != NULL && types[field->type].size > 0 ? field->refuse(place) : NULL;
    return why == NULL ? 0 : fail(r, "%s", why);
}

static int check_length(struct reader *r, const struct field *field, size_t n)
{
    int64_t max = field->max > 0 ? field->max : SCHEMA_LIST_MAX;
    if ((int64_t)n >= field->min && (int64_t)n <= max)
        return 0;
    return fail(r, "must have %lld to %lld members", (long long)field->min, (long long)max);
}

static int read_list(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    const struct field element = element_of(field);
    size_t size = element_size(field);
    struct list *list = place;
    if (field->type == S_POINTERS && json_object_is_type(value, json_type_string)) {
        *list = (struct list){.items = xcalloc(1, size), .n = 1};
        return read_value(r, &element, value, list->items);
    }
    if (!json_object_is_type(value, json_type_array))
        return fail(r, "must be an array");
    size_t n = json_object_array_length(value);
    if (check_length(r, field, n) < 0)
        return -1;
    *list = (struct list){.items = xcalloc(n, size), .n = n};
    for (size_t i = 0; i < n; i++) {
        char index[24];
        snprintf(index, sizeof(index), "%zu", i);
        size_t back = go_in(r, index);
        if (read_value(r, &element, json_object_array_get_idx(value, i), element_at(field, list, i)) < 0)
            return -1;
        go_out(r, back);
    }
    return 0;
}

/* Names appear in paths, Redis keys and log lines. */
const char *schema_refuse_name(const void *name)
{
    const char *text = *(char *const *)name;
    size_t len = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    bool good = len > 0 && len <= SCHEMA_NAME_MAX && text[len] == '\0';
    return good ? NULL : "a name must have 1 to 64 letters, digits, '_' and '-'";
}

static int read_map(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    const struct field element = element_of(field);
    struct list *list = place;
    if (!json_object_is_type(value, json_type_object))
        return fail(r, "must be an object");
    if (check_length(r, field, (size_t)json_object_object_length(value)) < 0)
        return -1;
    *list = (struct list){.items = xcalloc((size_t)json_object_object_length(value), element_size(field))};
    json_object_object_foreach(value, name, member)
    {
        char *at = element_at(field, list, list->n);
        size_t back = go_in(r, name);
        const char *why = schema_refuse_name(&name);
        if (why != NULL)
            return fail(r, "%s", why);
        list->n++;
        *(char **)(void *)at = xstrdup(name);
        if (read_value(r, &element, member, at + element.offset) < 0)
            return -1;
        go_out(r, back);
    }
    return 0;
}

/* ---- objects ---- */

static int refuse_unknown(struct reader *r, const struct table *table, struct json_object *object)
{
    char words[2048] = "";
    for (size_t i = 0; i < table->n_fields; i++) {
        size_t used = strlen(words);
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

static int read_field(struct reader *r, const struct field *field, struct json_object *object, void *out)
{
    struct json_object *value;
    bool there = json_object_object_get_ex(object, field->name, &value);
    if (!there && field->fallback == NULL)
        return fail(r, "the key \"%s\" is missing", field->name);
    value = there ? json_object_get(value) : json_tokener_parse(field->fallback);
    bool may_be_null = field->nullable || (field->fallback != NULL && strcmp(field->fallback, "null") == 0);
    if (value == NULL && may_be_null)
        return 0;
    size_t back = go_in(r, field->name);
    int result = read_value(r, field, value, (char *)out + field->offset);
    json_object_put(value);
    go_out(r, back);
    return result;
}

static int read_members(struct reader *r, const struct field *field, struct json_object *value, void *place)
{
    const struct table *table = field->table;
    if (!json_object_is_type(value, json_type_object))
        return fail(r, "must be an object");
    if (!table->partial && refuse_unknown(r, table, value) < 0)
        return -1;
    for (size_t i = 0; i < table->n_fields; i++) {
        if (read_field(r, &table->fields[i], value, place) < 0)
            return -1;
    }
    return 0;
}

static const struct type types[S_TYPES] = {
    [S_STRING] = {"string", sizeof(char *), read_string},
    [S_ACCOUNT] = {"account", sizeof(char *), read_account},
    [S_PATH] = {"path", sizeof(char *), read_path},
    [S_SECRET] = {"secret", sizeof(struct secret), read_secret},
    [S_DURATION] = {"duration", sizeof(int64_t), read_measure},
    [S_SIZE] = {"size", sizeof(int64_t), read_measure},
    [S_INT] = {"int", sizeof(int64_t), read_int},
    [S_BOOL] = {"bool", sizeof(bool), read_bool},
    [S_ENUM] = {"enum", sizeof(int), read_enum},
    [S_POINTER] = {"pointer", sizeof(struct json_path), read_pointer},
    [S_SCALAR] = {"scalar", sizeof(struct json_object *), read_scalar},
    [S_OBJECT] = {"object", 1, read_members},
    [S_STRINGS] = {"strings", 0, read_list, S_STRING},
    [S_SECRETS] = {"secrets", 0, read_list, S_SECRET},
    [S_POINTERS] = {"pointers", 0, read_list, S_POINTER},
    [S_SCALARS] = {"scalars", 0, read_list, S_SCALAR},
    [S_LIST] = {"list", 0, read_list, S_OBJECT},
    [S_MAP] = {"map", 0, read_map, S_OBJECT, .is_map = true},
    [S_MAP_TEXT] = {"map_text", 0, read_map, S_STRING, .is_map = true},
    [S_MAP_SECRET] = {"map_secret", 0, read_map, S_SECRET, .is_map = true},
};

static int read_root(const struct field *root, const struct schema_source *source, void *out,
                     char **ret_error)
{
    const struct file *file = source->file;
    struct json_error error;
    struct json_object *doc = json_read(file->data, file->len, MAX_DEPTH, JSON_WITH_COMMENTS, &error);
    if (doc == NULL) {
        *ret_error = xasprintf("%s:%zu: %s", file->path, error.line, error.why);
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
    return read_root(&(struct field){.type = S_MAP, .table = table, .min = 1}, source, out, ret_error);
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
    case S_SECRET:
        free(((struct secret *)place)->path);
        vault_free(((struct secret *)place)->text);
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
            if (types[field->type].is_map)
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

static struct json_object *text_json(const char *text)
{
    return text ? json_object_new_string(text) : NULL;
}

/* A name in quotes, or a number without. */
static struct json_object *account_json(const char *text)
{
    int64_t number;
    bool is_number = text != NULL && parse_int(text, &number) == 0;
    return is_number ? json_object_new_int64(number) : text_json(text);
}

static struct json_object *word_json(const char *words, int index)
{
    while (index-- > 0)
        words += strcspn(words, "|") + 1;
    return json_object_new_string_len(words, (int)strcspn(words, "|"));
}

static struct json_object *list_json(const struct field *field, const struct list *list)
{
    const struct field element = element_of(field);
    bool map = types[field->type].is_map;
    struct json_object *json = map ? json_object_new_object() : json_object_new_array();
    for (size_t i = 0; i < list->n; i++) {
        const char *at = element_at(field, list, i);
        struct json_object *member = to_json(&element, at + element.offset);
        if (map)
            json_object_object_add(json, *(char *const *)(const void *)at, member);
        else
            json_object_array_add(json, member);
    }
    return json;
}

static struct json_object *object_json(const struct table *table, const void *in)
{
    struct json_object *json = json_object_new_object();
    for (size_t i = 0; i < table->n_fields; i++) {
        const struct field *field = &table->fields[i];
        json_object_object_add(json, field->name, to_json(field, (const char *)in + field->offset));
    }
    return json;
}

/* Whether an optional object was left out: its struct is all zero. */
static bool is_absent(const struct field *field, const void *place)
{
    const char *bytes = place;
    if (field->fallback == NULL || strcmp(field->fallback, "null") != 0)
        return false;
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, field->table->size - 1) == 0;
}

static struct json_object *to_json(const struct field *field, const void *place)
{
    char text[32];
    switch (field->type) {
    case S_DURATION:
    case S_SIZE:
        measures[field->type].format(*(const int64_t *)place, text);
        return json_object_new_string(text);
    case S_INT:
        return json_object_new_int64(*(const int64_t *)place);
    case S_BOOL:
        return json_object_new_boolean(*(const bool *)place);
    case S_ENUM:
        return word_json(field->words, *(const int *)place);
    case S_ACCOUNT:
        return account_json(*(char *const *)place);
    case S_STRING:
    case S_PATH:
    case S_SECRET: /* begins with its path */
        return text_json(*(char *const *)place);
    case S_POINTER:
        return text_json(((const struct json_path *)place)->text);
    case S_SCALAR:
        return json_object_get(*(struct json_object *const *)place);
    case S_OBJECT:
        return is_absent(field, place) ? NULL : object_json(field->table, place);
    default:
        return list_json(field, place);
    }
}

void schema_print(const struct table *table, const void *in, struct buf *out)
{
    const int style = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE;
    struct json_object *json = object_json(table, in);
    buf_addf(out, "%s\n", json_object_to_json_string_ext(json, style));
    json_object_put(json);
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
            buf_addf(out, "%zu\t", i);
            describe_field(&seen, &seen.items[i]->fields[k], out);
        }
    }
}
