/* top_tasks: the ten tasks with the most watchers, which each worker reports to the master.
 *
 * A board is in shared memory: one process writes it, the other reads it without locks. */
#ifndef TOP_TASKS_H
#define TOP_TASKS_H

#include "lib/util.h"

enum { TOP_TASKS_MAX = 10, TOP_TASKS_NAME = 64 };

/* The most watched one first. */
struct top_tasks_list {
    size_t n;
    struct {
        char
            name[TOP_TASKS_NAME]; /* "sora/task_a…": enough to recognize the task, too little to request it */
        int64_t watchers;
    } tasks[TOP_TASKS_MAX];
};

struct top_tasks_board {
    uint32_t turn; /* odd during a write */
    struct top_tasks_list list;
};

/* Adds a task to the list if it is among the ten. */
void top_tasks_offer(struct top_tasks_list *list, const char *provider, const char *id, int64_t watchers);
void top_tasks_merge(struct top_tasks_list *list, const struct top_tasks_list *other);

void top_tasks_write(struct top_tasks_board *board, const struct top_tasks_list *list);

/* Returns false if the board keeps changing. Invalid content is truncated. */
bool top_tasks_read(const struct top_tasks_board *board, struct top_tasks_list *ret_list);

#endif
