/* listing: see listing.h. */
#include "server/listing.h"

#include <stdio.h>
#include <string.h>

enum { ROW_MAX = 4096, TEXT_WIDTH = 20, NUMBER_WIDTH = 8, VALUE_MAX = 256 };

void listing_open(struct listing *s, struct buf *out, bool text)
{
    *s = (struct listing){.out = out, .text = text};
    buf_init(&s->head, ROW_MAX);
    buf_init(&s->row, ROW_MAX);
    buf_puts(out, text ? "" : "{");
}

static void print_line(struct listing *s, const struct buf *line)
{
    size_t len = line->len;
    while (len > 0 && line->data[len - 1] == ' ')
        len--;
    buf_puts(s->out, "  ");
    buf_add(s->out, line->data, len);
    buf_putc(s->out, '\n');
}

/* The names of the fields come before the first row, and are known behind it. */
static void end_row(struct listing *s)
{
    if (s->rows == 0)
        return;
    if (s->text && s->rows == 1)
        print_line(s, &s->head);
    if (s->text)
        print_line(s, &s->row);
    else
        buf_addf(s->out, "{%s}", s->row.data ? s->row.data : "");
    buf_reset(&s->row);
    buf_reset(&s->head);
}

static void end_section(struct listing *s)
{
    end_row(s);
    if (s->sections > 0 && s->text)
        buf_puts(s->out, s->rows > 0 ? "\n" : "  none\n\n");
    else if (s->sections > 0 && s->list)
        buf_putc(s->out, ']');
}

void listing_close(struct listing *s)
{
    end_section(s);
    buf_puts(s->out, s->text ? "" : "}\n");
    buf_done(&s->head);
    buf_done(&s->row);
}

void listing_section(struct listing *s, const char *name, bool list)
{
    end_section(s);
    if (s->text)
        buf_addf(s->out, "%s\n", name);
    else
        buf_addf(s->out, "%s\"%s\":%s", s->sections > 0 ? "," : "", name, list ? "[" : "");
    s->sections++;
    s->rows = 0;
    s->list = list;
    if (!list)
        listing_row(s);
}

void listing_row(struct listing *s)
{
    end_row(s);
    if (s->rows > 0 && !s->text)
        buf_putc(s->out, ',');
    s->rows++;
    s->fields = 0;
}

/* `shown` is what takes place on the screen of the value. */
static void add(struct listing *s, const char *name, const char *value, size_t shown, size_t width)
{
    if (!s->text) {
        buf_addf(&s->row, "%s\"%s\":%s", s->fields++ > 0 ? "," : "", name, value);
        return;
    }
    size_t name_len = strlen(name);
    width = width < name_len ? name_len : width;
    buf_addf(&s->head, "%-*s  ", (int)width, name);
    buf_addf(&s->row, "%s%*s  ", value, shown < width ? (int)(width - shown) : 0, "");
}

void listing_text(struct listing *s, const char *name, const char *value)
{
    static const char dots[] = "…";
    char plain[VALUE_MAX];
    size_t len = 0, shown = 0;
    for (; *value != '\0' && len + sizeof(dots) < sizeof(plain); shown++) {
        if (strncmp(value, dots, sizeof(dots) - 1) == 0) {
            memcpy(plain + len, dots, sizeof(dots) - 1);
            len += sizeof(dots) - 1;
            value += sizeof(dots) - 1;
            continue;
        }
        plain[len++] = *value > ' ' - 1 && *value < 0x7f ? *value : '?';
        value++;
    }
    plain[len] = '\0';
    if (s->text)
        return add(s, name, plain, shown, TEXT_WIDTH);
    struct buf quoted;
    buf_init(&quoted, 2 * VALUE_MAX + 3);
    buf_add_json_string(&quoted, plain, len);
    add(s, name, quoted.data, 0, 0);
    buf_done(&quoted);
}

void listing_number(struct listing *s, const char *name, int64_t value)
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%lld", (long long)value);
    add(s, name, digits, (size_t)len, NUMBER_WIDTH);
}

void listing_share(struct listing *s, const char *name, double value)
{
    char digits[32];
    int len = snprintf(digits, sizeof(digits), "%.3f", value);
    add(s, name, digits, (size_t)len, NUMBER_WIDTH);
}
