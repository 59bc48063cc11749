/* screen: see screen.h. */
#include "screen.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_UNKNOWN = 80 };

/* Back to the first column, and nothing from there on (ECMA-48: EL). */
#define CLEAR_LINE "\r\033[K"

void screen_init(struct screen *s)
{
    *s = (struct screen){.is_terminal = isatty(STDOUT_FILENO) == 1};
}

int screen_width(void)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : WIDTH_UNKNOWN;
}

static void write_out(struct screen *s, const char *before, const char *text, const char *after)
{
    if (printf("%s%s%s", before, text, after) < 0 || fflush(stdout) != 0)
        s->broken = true;
}

void screen_draw(struct screen *s, const char *text)
{
    if (!s->is_terminal)
        return;
    write_out(s, CLEAR_LINE, text, "");
    s->drawn = true;
}

void screen_clear(struct screen *s)
{
    if (s->drawn)
        write_out(s, CLEAR_LINE, "", "");
    s->drawn = false;
}

void screen_say(struct screen *s, const char *text)
{
    screen_clear(s);
    write_out(s, "", text, "\n");
}

void screen_complain(struct screen *s, const char *format, ...)
{
    va_list args;
    screen_clear(s);
    fputs("taskproxy: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}
