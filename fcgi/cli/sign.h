/* sign: creates credentials on the command line - a team token (--new-token), a signed link (--sign). */
#ifndef SIGN_H
#define SIGN_H

#include "config/conf.h"

/* Prints a new token and its line for teams.json. Returns the exit status. */
int sign_new_token(void);

/* The options of --sign as given, or NULL. */
struct sign_order {
    const char *team;
    const char *task;  /* PROVIDER/TASK_ID, or NULL and */
    const char *tasks; /* such names, separated by commas */
    const char *ttl;   /* a duration */
};

/* Prints the query string of a signed link on one line. Returns an error (allocated), or NULL. */
char *sign_link(const struct conf *conf, const struct sign_order *order);

#endif
