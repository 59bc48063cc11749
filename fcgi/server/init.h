/* init: the program as process 1 of a container.
 *
 * The kernel ignores signals for process 1 that it has no handler for, and makes it the parent of every orphan. So
 * process 1 forks: the child becomes the master, and process 1 only passes HUP, INT and TERM on to it, reaps what ends,
 * and ends when the master does. */
#ifndef INIT_H
#define INIT_H

/* Call it before anything is read, so that process 1 holds no key. Returns in the process that is to be the master, at
 * once when this is not process 1; signals that come until the master reads them stay pending. */
void init_split(void);

#endif
