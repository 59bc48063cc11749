/* manual: see manual.h.
 *
 * Each table becomes one subsection, under the pointer that error messages name it by; a table that several keys
 * share, or that holds itself, stands once, and the others refer to it. */
#include "cli/manual.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/conf.h"

enum { SECTIONS_MAX = 32, POINTER_SIZE = 128 };

struct section {
    const struct table *table;
    char pointer[POINTER_SIZE];
};

struct manual {
    struct buf *out;
    struct section sections[SECTIONS_MAX]; /* in the order in which they were met */
    size_t n_sections;
};

static const char *const type_words[] = {
    [S_STRING] = "string",
    [S_PATH] = "path",
    [S_DURATION] = "duration",
    [S_SIZE] = "size",
    [S_INT] = "whole number",
    [S_ENUM] = "one of",
    [S_POINTER] = "pointer",
    [S_STRINGS] = "list of strings",
    [S_PATHS] = "list of paths",
    [S_POINTERS] = "pointer or list of pointers",
    [S_SCALARS] = "list of strings, whole numbers, true, false and null",
    [S_OBJECT] = "object",
    [S_LIST] = "list of objects",
    [S_MAP] = "objects by name",
    [S_MAP_TEXT] = "strings by name",
};

/* No line begins with text of ours, so that none looks like a request of roff's. */
static void add_text(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '\\':
            buf_puts(out, "\\e");
            break;
        case '-':
            buf_puts(out, "\\-");
            break;
        case '\'':
            buf_puts(out, "\\(aq");
            break;
        case '^':
            buf_puts(out, "\\(ha");
            break;
        default:
            buf_putc(out, *text);
        }
    }
}

/* The section of the field's table; a new one when it was not met before. */
static const struct section *section_of(struct manual *m, const struct field *field, const char *parent)
{
    for (size_t i = 0; i < m->n_sections; i++) {
        if (m->sections[i].table == field->table)
            return &m->sections[i];
    }
    if (m->n_sections == SECTIONS_MAX)
        abort(); /* the tables are ours */
    const char *member = field->type == S_MAP ? "/NAME" : field->type == S_LIST ? "/N" : "";
    struct section *section = &m->sections[m->n_sections++];
    section->table = field->table;
    snprintf(section->pointer, POINTER_SIZE, "%s/%s%s", parent, field->name, member);
    return section;
}

/* ---- one key ---- */

static void add_words(struct buf *out, const char *words)
{
    for (const char *separator = " "; *words != '\0'; separator = ", ") {
        size_t len = strcspn(words, "|");
        buf_puts(out, separator);
        buf_putc(out, '"');
        for (size_t i = 0; i < len; i++)
            add_text(out, (char[]){words[i], '\0'});
        buf_putc(out, '"');
        words += len + (words[len] == '|');
    }
}

static void add_lengths(struct buf *out, const struct field *field)
{
    const char *each = field->type == S_STRING ? "" : "each ";
    if (field->min > 0)
        buf_addf(out, ", %sof %lld to %lld characters", each, (long long)field->min, (long long)field->max);
    else
        buf_addf(out, ", %sof at most %lld characters", each, (long long)field->max);
}

static void add_bounds(struct buf *out, const struct field *field)
{
    char min[32], max[32];
    switch (field->type) {
    case S_DURATION:
        format_duration(field->min, min);
        format_duration(field->max, max);
        break;
    case S_SIZE:
        format_size(field->min, min);
        format_size(field->max, max);
        break;
    case S_INT:
        snprintf(min, sizeof(min), "%lld", (long long)field->min);
        snprintf(max, sizeof(max), "%lld", (long long)field->max);
        break;
    default:
        return add_lengths(out, field);
    }
    buf_addf(out, " from %s to %s", min, max);
}

static void add_type(struct manual *m, const struct field *field, const char *parent)
{
    buf_puts(m->out, type_words[field->type]);
    if (field->type == S_ENUM)
        add_words(m->out, field->words);
    else if (field->min != 0 || field->max != 0)
        add_bounds(m->out, field);
    if (field->nullable)
        buf_puts(m->out, ", or null");
    if (field->table != NULL) {
        buf_puts(m->out, ", see ");
        add_text(m->out, section_of(m, field, parent)->pointer);
    }
}

static void add_key(struct manual *m, const struct field *field, const char *parent)
{
    buf_puts(m->out, ".TP\n\\fB");
    add_text(m->out, field->name);
    buf_puts(m->out, "\\fR: ");
    add_type(m, field, parent);
    buf_puts(m->out, field->fallback ? "; default " : "; required");
    if (field->fallback != NULL)
        add_text(m->out, field->fallback);
    buf_puts(m->out, "\n\\&");
    add_text(m->out, field->help);
    buf_putc(m->out, '\n');
}

/* ---- all of them ---- */

static void add_section(struct manual *m, const struct section *section)
{
    buf_puts(m->out, ".SS ");
    add_text(m->out, section->pointer[0] ? section->pointer : "/");
    buf_putc(m->out, '\n');
    for (size_t i = 0; i < section->table->n_fields; i++) {
        if (!schema_is_key(&section->table->fields[i]))
            add_key(m, &section->table->fields[i], section->pointer);
    }
}

/* `root` is where the table's object stands in the file: "" is all of it. */
static void add_file(struct buf *out, const char *title, const struct table *table, const char *root)
{
    struct manual m = {.out = out, .n_sections = 1, .sections[0].table = table};
    snprintf(m.sections[0].pointer, POINTER_SIZE, "%s", root);
    buf_addf(out, ".SH %s\n", title);
    for (size_t i = 0; i < m.n_sections; i++)
        add_section(&m, &m.sections[i]);
}

void manual_print(struct buf *out)
{
    add_file(out, "KEYS OF THE CONFIGURATION", &conf_table, "");
    add_file(out, "KEYS OF THE TEAMS FILE", &team_table, "/NAME");
    add_file(out, "KEYS OF A PROVIDER FILE", &provider_table, "");
}
