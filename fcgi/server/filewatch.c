/* filewatch: see filewatch.h. */
#include "server/filewatch.h"

#include <stdlib.h>

/* Files that keep changing are reported after LOOKS_MAX looks. */
enum { LOOK_MS = 500, LOOKS_MAX = 10 };

struct entry {
    char *path;
    struct file_stamp reported; /* at the last call of on_change */
    struct file_stamp looked;   /* at the last look */
};

struct filewatch {
    void (*on_change)(void *ctx);
    void *ctx;
    struct entry *entries;
    size_t n;
    int looks; /* consecutive looks at which a file had changed again */
    uv_timer_t timer;
};

/* Whether any file has changed since the last look, and whether any has since the last call of on_change. */
static void look(struct filewatch *w, bool *ret_moved, bool *ret_differs)
{
    *ret_moved = *ret_differs = false;
    for (size_t i = 0; i < w->n; i++) {
        struct entry *entry = &w->entries[i];
        struct file_stamp now = file_stamp_now(entry->path);
        *ret_moved |= !file_stamp_same(&now, &entry->looked);
        *ret_differs |= !file_stamp_same(&now, &entry->reported);
        entry->looked = now;
    }
}

static void on_look(uv_timer_t *timer)
{
    struct filewatch *w = CONTAINER_OF(timer, struct filewatch, timer);
    bool moved, differs;
    look(w, &moved, &differs);
    w->looks = moved ? w->looks + 1 : 0;
    if (!differs || (moved && w->looks < LOOKS_MAX))
        return;
    w->looks = 0;
    for (size_t i = 0; i < w->n; i++)
        w->entries[i].reported = w->entries[i].looked;
    w->on_change(w->ctx);
}

static void forget(struct filewatch *w)
{
    for (size_t i = 0; i < w->n; i++)
        free(w->entries[i].path);
    free(w->entries);
    w->entries = NULL;
    w->n = 0;
}

void filewatch_set(struct filewatch *w, const struct files *files)
{
    const struct file *file;
    forget(w);
    for (size_t i = 0; (file = files_at(files, i)) != NULL; i++) {
        if (file->kind == FILE_PLAIN)
            continue;
        w->entries = xrealloc(w->entries, (w->n + 1) * sizeof(*w->entries));
        w->entries[w->n++] =
            (struct entry){.path = xstrdup(file->path), .reported = file->stamp, .looked = file->stamp};
    }
}

struct filewatch *filewatch_new(uv_loop_t *loop, void (*on_change)(void *ctx), void *ctx)
{
    struct filewatch *w = xcalloc(1, sizeof(*w));
    w->on_change = on_change;
    w->ctx = ctx;
    uv_timer_init(loop, &w->timer);
    uv_timer_start(&w->timer, on_look, LOOK_MS, LOOK_MS);
    return w;
}

static void on_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF((uv_timer_t *)handle, struct filewatch, timer));
}

void filewatch_free(struct filewatch *w)
{
    if (w == NULL)
        return;
    forget(w);
    uv_close((uv_handle_t *)&w->timer, on_closed);
}
