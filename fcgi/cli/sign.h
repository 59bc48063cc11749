/* sign: credentials that are made on the command line - a team's token (--new-token), a link (--sign). */
#ifndef SIGN_H
#define SIGN_H

#include "config/conf.h"

/* Prints a new token, and the line of teams.json that lets it in. The exit status. */
int sign_new_token(void);

/* What --sign needs; each as it was given, or NULL. */
struct sign_order {
    const char *team;
    const char *task; /* PROVIDER/TASK_ID */
    const char *ttl;  /* a duration */
};

/* Prints the query of a signed link, on one line, or says what is wrong. The exit status. */
int sign_link(const struct conf *conf, const struct sign_order *order);

#endif
