/* watched: the ten tasks that most clients wait for, told by each worker to the master.
 *
 * A board stands in memory that both have: one process writes it, the other reads it without waiting. */
#ifndef WATCHED_H
#define WATCHED_H

#include "util.h"

enum { WATCHED_MAX = 10, WATCHED_NAME = 64 };

/* The most watched one first. */
struct watched_list {
    size_t n;
    struct {
        char name[WATCHED_NAME]; /* "sora/task_a…": enough to know it again, too little to ask for it */
        int64_t watchers;
    } tasks[WATCHED_MAX];
};

struct watched_board {
    uint32_t turn; /* odd while it is being written */
    struct watched_list list;
};

/* Takes a task into the list if it is among the ten. */
void watched_offer(struct watched_list *list, const char *provider, const char *id, int64_t watchers);
void watched_merge(struct watched_list *list, const struct watched_list *other);

void watched_write(struct watched_board *board, const struct watched_list *list);

/* False when it changes all the time. What the writer left there is cut to what a list may be. */
bool watched_read(const struct watched_board *board, struct watched_list *ret_list);

#endif
