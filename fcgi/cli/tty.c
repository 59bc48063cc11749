/* tty: see tty.h. */
#include "cli/tty.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { WIDTH_UNKNOWN = 80 };

/* To the first column, then erase the line (ECMA-48: EL). */
#define CLEAR_LINE "\r\033[K"

/* ---- the terminal's echo of control characters: "^C" would stay where the line was ---- */

static volatile sig_atomic_t echo_is_off; /* and we turned it off */

/* Async-signal-safe. A background process leaves the terminal's settings alone: they are the shell's then. */
static void set_echo(bool on)
{
    struct termios settings;
    if (tcgetpgrp(STDOUT_FILENO) != getpgrp() || tcgetattr(STDOUT_FILENO, &settings) < 0)
        return;
    tcflag_t flags = on ? settings.c_lflag | ECHOCTL : settings.c_lflag & ~(tcflag_t)ECHOCTL;
    if (flags == settings.c_lflag)
        return;
    settings.c_lflag = flags;
    echo_is_off = !on;
    tcsetattr(STDOUT_FILENO, TCSANOW, &settings);
}

static void restore_echo(void)
{
    if (echo_is_off)
        set_echo(true);
}

static void on_fatal_signal(int number)
{
    restore_echo();
    raise(number); /* the default action, when this handler has returned */
}

static void on_stop(int number)
{
    (void)number;
    bool was_off = echo_is_off;
    restore_echo();
    raise(SIGSTOP);
    if (was_off)
        set_echo(false);
}

static void handle_signals(void)
{
    static const int fatal[] = {SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    struct sigaction end = {.sa_handler = on_fatal_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < NELEMS(fatal); i++)
        sigaction(fatal[i], &end, NULL);
    sigaction(SIGTSTP, &stop, NULL);
}

/* ---- output ---- */

void tty_init(struct tty *s)
{
    *s = (struct tty){.is_terminal = isatty(STDOUT_FILENO) == 1};
    if (s->is_terminal)
        handle_signals();
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
    set_echo(false);
    write_out(s, CLEAR_LINE, text, "");
    s->drawn = true;
}

void tty_clear(struct tty *s)
{
    if (s->drawn)
        write_out(s, CLEAR_LINE, "", "");
    s->drawn = false;
    restore_echo();
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
