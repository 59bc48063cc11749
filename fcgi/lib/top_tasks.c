/* top_tasks: see top_tasks.h. */
#include "lib/top_tasks.h"

#include <stdio.h>
#include <string.h>

enum { ID_SHOWN = 6, TRIES = 100 };

static void offer_name(struct top_tasks_list *list, const char *name, int64_t watchers)
{
    size_t at = list->n;
    while (at > 0 && list->tasks[at - 1].watchers < watchers)
        at--;
    if (at == TOP_TASKS_MAX)
        return;
    size_t behind = (list->n < TOP_TASKS_MAX ? list->n : TOP_TASKS_MAX - 1) - at;
    memmove(&list->tasks[at + 1], &list->tasks[at], behind * sizeof(list->tasks[0]));
    snprintf(list->tasks[at].name, TOP_TASKS_NAME, "%s", name);
    list->tasks[at].watchers = watchers;
    list->n = at + behind + 1;
}

void top_tasks_offer(struct top_tasks_list *list, const char *provider, const char *id, int64_t watchers)
{
    char name[TOP_TASKS_NAME];
    size_t len = strlen(id), shown = len > ID_SHOWN ? ID_SHOWN : len / 2;
    if (list->n == TOP_TASKS_MAX && watchers <= list->tasks[TOP_TASKS_MAX - 1].watchers)
        return;
    snprintf(name, sizeof(name), "%.40s/%.*s…", provider, (int)shown, id);
    offer_name(list, name, watchers);
}

void top_tasks_merge(struct top_tasks_list *list, const struct top_tasks_list *other)
{
    for (size_t i = 0; i < other->n; i++)
        offer_name(list, other->tasks[i].name, other->tasks[i].watchers);
}

void top_tasks_write(struct top_tasks_board *board, const struct top_tasks_list *list)
{
    __atomic_store_n(&board->turn, board->turn | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    board->list = *list;
    __atomic_store_n(&board->turn, board->turn + 1, __ATOMIC_RELEASE);
}

bool top_tasks_read(const struct top_tasks_board *board, struct top_tasks_list *ret_list)
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t turn = __atomic_load_n(&board->turn, __ATOMIC_ACQUIRE);
        *ret_list = board->list;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (turn % 2 != 0 || turn != __atomic_load_n(&board->turn, __ATOMIC_RELAXED))
            continue;
        if (ret_list->n > TOP_TASKS_MAX)
            ret_list->n = TOP_TASKS_MAX;
        for (size_t k = 0; k < ret_list->n; k++)
            ret_list->tasks[k].name[TOP_TASKS_NAME - 1] = '\0';
        return true;
    }
    return false;
}
