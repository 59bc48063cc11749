/* tty: standard output - lines, and where it is a terminal a line at the bottom that is drawn anew.
 *
 * While that line is drawn, the terminal does not echo control characters. The setting is restored by tty_clear(), and
 * when a signal stops or kills the process; SIGINT and SIGTERM are the caller's to handle. */
#ifndef TTY_H
#define TTY_H

#include "lib/util.h"

struct tty {
    bool is_terminal;
    bool drawn;  /* something stands on the bottom line */
    bool broken; /* nobody reads any more */
};

void tty_init(struct tty *screen);

/* The terminal's columns, now. */
int tty_width(void);

/* Puts `text`, which fits into one line, in the place of what stands on the bottom line. Nothing is drawn where there is no
 * terminal. */
void tty_draw(struct tty *screen, const char *text);
void tty_clear(struct tty *screen);

/* A line that stays. */
void tty_say(struct tty *screen, const char *text);

/* A line on standard error. */
void tty_complain(struct tty *screen, const char *format, ...) PRINTF(2, 3);

#endif
