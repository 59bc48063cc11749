/* screen: standard output - lines, and where it is a terminal a line at the bottom that is drawn anew. */
#ifndef SCREEN_H
#define SCREEN_H

#include "util.h"

struct screen {
    bool is_terminal;
    bool drawn;  /* something stands on the bottom line */
    bool broken; /* nobody reads any more */
};

void screen_init(struct screen *screen);

/* The terminal's columns, now. */
int screen_width(void);

/* Puts `text`, which fits into one line, in the place of what stands on the bottom line. Nothing is drawn where there is no
 * terminal. */
void screen_draw(struct screen *screen, const char *text);
void screen_clear(struct screen *screen);

/* A line that stays. */
void screen_say(struct screen *screen, const char *text);

/* A line on standard error. */
void screen_complain(struct screen *screen, const char *format, ...) PRINTF(2, 3);

#endif
