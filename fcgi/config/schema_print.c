/* schema_print: the way back, from a struct to JSON (schema.h). */
#include "config/schema.h"

#include <string.h>

static void print_object(const struct table *table, const void *in, int depth, struct buf *out);

static void print_text(struct buf *out, const char *text)
{
    if (text == NULL)
        buf_puts(out, "null");
    else
        buf_add_json_string(out, text, strlen(text));
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

static void print_element(const struct field *field, const void *element, int depth, struct buf *out)
{
    switch (field->type) {
    case S_STRINGS:
    case S_PATHS:
        print_text(out, *(char *const *)element);
        break;
    case S_POINTERS:
        print_text(out, ((const struct json_path *)element)->text);
        break;
    case S_SCALARS:
        buf_puts(out, json_object_to_json_string(*(struct json_object *const *)element));
        break;
    case S_MAP:
        print_text(out, *(char *const *)element);
        buf_puts(out, ": ");
        print_object(field->table, element, depth, out);
        break;
    case S_MAP_TEXT:
        print_text(out, ((const struct pair *)element)->name);
        buf_puts(out, ": ");
        print_text(out, ((const struct pair *)element)->value);
        break;
    default:
        print_object(field->table, element, depth, out);
    }
}

static void print_list(const struct field *field, const struct list *list, int depth, struct buf *out)
{
    bool map = field->type == S_MAP || field->type == S_MAP_TEXT;
    buf_putc(out, map ? '{' : '[');
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0)
            buf_putc(out, ',');
        new_line(out, depth + 1);
        print_element(field, (const char *)list->items + i * schema_element_size(field), depth + 1, out);
    }
    if (list->n > 0)
        new_line(out, depth);
    buf_putc(out, map ? '}' : ']');
}

/* An object that may be left out, and was: all of its struct is zero. */
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
    case S_ENUM:
        print_word(field->words, *(const int *)place, out);
        break;
    case S_STRING:
    case S_PATH:
        print_text(out, *(char *const *)place);
        break;
    case S_POINTER:
        print_text(out, ((const struct json_path *)place)->text);
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
        if (schema_is_key(field))
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
