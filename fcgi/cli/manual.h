/* manual: the reference of all keys, as it stands in taskproxy.json(5), from the tables that read them. */
#ifndef MANUAL_H
#define MANUAL_H

#include "config/schema.h"

/* A section for each kind of file, in roff (man(7)): the keys of the configuration, of the teams file and of a
 * provider file, each with its type, bounds, default and help. */
void manual_print(struct buf *out);

#endif
