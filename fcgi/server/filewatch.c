/* filewatch: see filewatch.h.
 *
 *     an event in a folder --.
 *                             >--> in a moment: look --as it was--> nothing
 *     now and then ----------'          ^  |   '------other, and still since the last look--> on_change
 *                                       '--' it has moved since the last look */
#include "server/filewatch.h"

#include <stdlib.h>
#include <string.h>

enum { SETTLE_MS = 200, LOOK_EACH_MS = 5000, LOOKS_MOST = 25 };

struct entry {
    char *path;
    struct file_stamp told;   /* as on_change knows it */
    struct file_stamp looked; /* at the last look */
};

/* A folder in which one of the files is, or the one that a symbolic link leads to. */
struct folder {
    struct folder *next;
    char *path;
    uv_fs_event_t event;
};

struct filewatch {
    uv_loop_t *loop; /* (ref) */
    void (*on_change)(void *ctx);
    void *ctx;
    struct entry *entries;
    size_t n;
    struct folder *folders;
    int looks;         /* one after the other, while something moves */
    uv_timer_t settle; /* active: the next look comes in a moment */
    uv_timer_t again;  /* the look now and then */
    int open_handles;
};

static void look_soon(struct filewatch *w);

/* ---- folders ---- */

static void on_event(uv_fs_event_t *event, const char *name, int events, int status)
{
    (void)name, (void)events, (void)status;
    look_soon(event->data);
}

static void on_folder_closed(uv_handle_t *handle)
{
    struct folder *folder = CONTAINER_OF((uv_fs_event_t *)handle, struct folder, event);
    free(folder->path);
    free(folder);
}

static void leave_folders(struct filewatch *w)
{
    while (w->folders != NULL) {
        struct folder *folder = w->folders;
        w->folders = folder->next;
        uv_close((uv_handle_t *)&folder->event, on_folder_closed);
    }
}

/* One that cannot be watched is left to the look now and then. */
static void watch_folder_of(struct filewatch *w, const char *file)
{
    const char *slash = strrchr(file, '/');
    char *path = slash ? xstrndup(file, (size_t)(slash - file) + 1) : xstrdup("./");
    for (const struct folder *known = w->folders; known != NULL; known = known->next) {
        if (strcmp(known->path, path) == 0) {
            free(path);
            return;
        }
    }
    struct folder *folder = xcalloc(1, sizeof(*folder));
    *folder = (struct folder){.next = w->folders, .path = path};
    w->folders = folder;
    uv_fs_event_init(w->loop, &folder->event);
    folder->event.data = w;
    if (uv_fs_event_start(&folder->event, on_event, path, 0) < 0)
        uv_fs_event_stop(&folder->event);
}

static void watch_folders(struct filewatch *w)
{
    leave_folders(w);
    for (size_t i = 0; i < w->n; i++) {
        char *why = NULL, *place = file_place(w->entries[i].path, &why);
        char *real = place ? realpath(place, NULL) : NULL;
        if (place != NULL)
            watch_folder_of(w, place);
        if (real != NULL)
            watch_folder_of(w, real);
        free(place);
        free(real);
        free(why);
    }
}

/* ---- looking ---- */

/* Whether something moved since the last look, and whether all is as on_change knows it. */
static void look(struct filewatch *w, bool *ret_moved, bool *ret_as_told)
{
    *ret_moved = false;
    *ret_as_told = true;
    for (size_t i = 0; i < w->n; i++) {
        struct entry *entry = &w->entries[i];
        struct file_stamp now = file_stamp_now(entry->path);
        *ret_moved |= !file_stamp_same(&now, &entry->looked);
        *ret_as_told &= file_stamp_same(&now, &entry->told);
        entry->looked = now;
    }
}

static void on_settle(uv_timer_t *timer)
{
    struct filewatch *w = CONTAINER_OF(timer, struct filewatch, settle);
    bool moved, as_told;
    look(w, &moved, &as_told);
    if (moved && ++w->looks < LOOKS_MOST) {
        look_soon(w);
        return;
    }
    w->looks = 0;
    if (as_told)
        return;
    for (size_t i = 0; i < w->n; i++)
        w->entries[i].told = w->entries[i].looked;
    watch_folders(w);
    w->on_change(w->ctx);
}

static void look_soon(struct filewatch *w)
{
    if (!uv_is_active((uv_handle_t *)&w->settle))
        uv_timer_start(&w->settle, on_settle, SETTLE_MS, 0);
}

static void on_again(uv_timer_t *timer)
{
    look_soon(CONTAINER_OF(timer, struct filewatch, again));
}

/* ---- the whole ---- */

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
            (struct entry){.path = xstrdup(file->path), .told = file->stamp, .looked = file->stamp};
    }
    watch_folders(w);
    look_soon(w); /* for what has changed since they were read */
}

struct filewatch *filewatch_new(uv_loop_t *loop, void (*on_change)(void *ctx), void *ctx)
{
    struct filewatch *w = xcalloc(1, sizeof(*w));
    *w = (struct filewatch){.loop = loop, .on_change = on_change, .ctx = ctx, .open_handles = 2};
    uv_timer_init(loop, &w->settle);
    uv_timer_init(loop, &w->again);
    w->settle.data = w->again.data = w;
    uv_timer_start(&w->again, on_again, LOOK_EACH_MS, LOOK_EACH_MS);
    return w;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct filewatch *w = handle->data;
    if (--w->open_handles == 0)
        free(w);
}

void filewatch_free(struct filewatch *w)
{
    if (w == NULL)
        return;
    forget(w);
    leave_folders(w);
    uv_close((uv_handle_t *)&w->settle, on_timer_closed);
    uv_close((uv_handle_t *)&w->again, on_timer_closed);
}
