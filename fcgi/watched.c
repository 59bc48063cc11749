/* watched: see watched.h. */
#include "watched.h"

#include <stdio.h>
#include <string.h>

enum { ID_SHOWN = 6, TRIES = 100 };

static void offer_name(struct watched_list *list, const char *name, int64_t watchers)
{
    size_t at = list->n;
    while (at > 0 && list->tasks[at - 1].watchers < watchers)
        at--;
    if (at == WATCHED_MAX)
        return;
    size_t behind = (list->n < WATCHED_MAX ? list->n : WATCHED_MAX - 1) - at;
    memmove(&list->tasks[at + 1], &list->tasks[at], behind * sizeof(list->tasks[0]));
    snprintf(list->tasks[at].name, WATCHED_NAME, "%s", name);
    list->tasks[at].watchers = watchers;
    list->n = at + behind + 1;
}

void watched_offer(struct watched_list *list, const char *provider, const char *id, int64_t watchers)
{
    char name[WATCHED_NAME];
    size_t len = strlen(id), shown = len > ID_SHOWN ? ID_SHOWN : len / 2;
    if (list->n == WATCHED_MAX && watchers <= list->tasks[WATCHED_MAX - 1].watchers)
        return;
    snprintf(name, sizeof(name), "%.40s/%.*s…", provider, (int)shown, id);
    offer_name(list, name, watchers);
}

void watched_merge(struct watched_list *list, const struct watched_list *other)
{
    for (size_t i = 0; i < other->n; i++)
        offer_name(list, other->tasks[i].name, other->tasks[i].watchers);
}

void watched_write(struct watched_board *board, const struct watched_list *list)
{
    __atomic_store_n(&board->turn, board->turn | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    board->list = *list;
    __atomic_store_n(&board->turn, board->turn + 1, __ATOMIC_RELEASE);
}

bool watched_read(const struct watched_board *board, struct watched_list *ret_list)
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t turn = __atomic_load_n(&board->turn, __ATOMIC_ACQUIRE);
        *ret_list = board->list;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (turn % 2 != 0 || turn != __atomic_load_n(&board->turn, __ATOMIC_RELAXED))
            continue;
        if (ret_list->n > WATCHED_MAX)
            ret_list->n = WATCHED_MAX;
        for (size_t k = 0; k < ret_list->n; k++)
            ret_list->tasks[k].name[WATCHED_NAME - 1] = '\0';
        return true;
    }
    return false;
}
