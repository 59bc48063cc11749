/* tty: see tty.h. */
#include "cli/tty.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_UNKNOWN = 80 };

/* Back to the first column, and nothing from there on (ECMA-48: EL). */
#define CLEAR_LINE "\r\033[K"

void tty_init(struct tty *s)
{
    *s = (struct tty){.is_terminal = isatty(STDOUT_FILENO) == 1};
}

int tty_width(void)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : WIDTH_UNKNOWN;
}

static void write_out(struct tty *s, const char *before, const char *text, const char *after)
{
    if (printf("%s%s%s", before, text, after) < 0 || fflush(stdout) != 0)
        s->broken = true;
}

void tty_draw(struct tty *s, const char *text)
{
    if (!s->is_terminal)
        return;
    write_out(s, CLEAR_LINE, text, "");
    s->drawn = true;
}

void tty_clear(struct tty *s)
{
    if (s->drawn)
        write_out(s, CLEAR_LINE, "", "");
    s->drawn = false;
}

void tty_say(struct tty *s, const char *text)
{
    tty_clear(s);
    write_out(s, "", text, "\n");
}

void tty_complain(struct tty *s, const char *format, ...)
{
    va_list args;
    tty_clear(s);
    fputs("taskproxy: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}
