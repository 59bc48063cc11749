/* tty: standard output - lines and, in a terminal, a status line at the bottom that is redrawn.
 *
 * While the status line is shown, the terminal does not echo control characters. The setting is restored by tty_clear(), and
 * when a signal stops or kills the process; SIGINT and SIGTERM are the caller's to handle. */
#ifndef TTY_H
#define TTY_H

#include "lib/util.h"

struct tty {
    bool is_terminal;
    bool drawn;  /* the status line is shown */
    bool broken; /* the reader has closed the pipe */
};

void tty_init(struct tty *screen);

/* The current width of the terminal. */
int tty_width(void);

/* Replaces the status line with `text`, which must fit into one line. Does nothing without a terminal. */
void tty_draw(struct tty *screen, const char *text);
void tty_clear(struct tty *screen);

/* Prints a line. */
void tty_say(struct tty *screen, const char *text);

/* Prints an error message. */
void tty_complain(struct tty *screen, const char *format, ...) PRINTF(2, 3);

#endif
