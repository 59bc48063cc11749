/* top_tasks: the ten tasks that most clients wait for, told by each worker to the master.
 *
 * A board stands in memory that both have: one process writes it, the other reads it without waiting. */
#ifndef TOP_TASKS_H
#define TOP_TASKS_H

#include "lib/util.h"

enum { TOP_TASKS_MAX = 10, TOP_TASKS_NAME = 64 };

/* The most watched one first. */
struct top_tasks_list {
    size_t n;
    struct {
        char name[TOP_TASKS_NAME]; /* "sora/task_a…": enough to know it again, too little to ask for it */
        int64_t watchers;
    } tasks[TOP_TASKS_MAX];
};

struct top_tasks_board {
    uint32_t turn; /* odd while it is being written */
    struct top_tasks_list list;
};

/* Takes a task into the list if it is among the ten. */
void top_tasks_offer(struct top_tasks_list *list, const char *provider, const char *id, int64_t watchers);
void top_tasks_merge(struct top_tasks_list *list, const struct top_tasks_list *other);

void top_tasks_write(struct top_tasks_board *board, const struct top_tasks_list *list);

/* False when it changes all the time. What the writer left there is cut to what a list may be. */
bool top_tasks_read(const struct top_tasks_board *board, struct top_tasks_list *ret_list);

#endif
