/* unified: see unified.h.
 *
 * Every view has every member; unknown values are null, and so are values of another type than the provider file says. */
#include "task/unified.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "task/expiry.h"

enum { MAX_RESULTS = 256 };

static const int64_t beijing_offset = 8 * 3600;

/* ---- numbers and times ---- */

/* A number, or a string that is a number with the suffix. */
static bool number_of(struct json_object *value, const char *suffix, double *ret)
{
    if (json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double)) {
        *ret = json_object_get_double(value);
        return isfinite(*ret);
    }
    const char *text = json_text(value);
    if (text == NULL || text[0] == '\0' || strlen(text) > 32)
        return false;
    char *end;
    *ret = strtod(text, &end);
    return end != text && strcmp(end, suffix) == 0 && isfinite(*ret);
}

static int64_t time_of(struct json_object *doc, const struct time_field *field)
{
    struct json_object *value = NULL;
    double number;
    int64_t seconds = 0;
    if (field->at.n_segments == 0 || !json_at(doc, &field->at, NULL, &value))
        return 0;
    if (field->form == TIME_ISO8601 || field->form == TIME_BEIJING) {
        const char *text = json_text(value);
        seconds = text ? iso8601_seconds(text) : 0;
        if (seconds != 0 && field->form == TIME_BEIJING)
            seconds -= beijing_offset;
    } else if (number_of(value, "", &number) && number > 0 && number < 1e15) {
        seconds = (int64_t)(field->form == TIME_UNIX_MILLISECONDS ? number / 1000 : number);
    }
    seconds += seconds > 0 ? field->plus_ms / 1000 : 0;
    /* Years of four digits only, or the text would not be RFC 3339. */
    return seconds > 0 && seconds < 253402300800 ? seconds : 0;
}

static void write_time(struct buf *out, const char *name, int64_t seconds)
{
    char text[32];
    buf_addf(out, ",\"%s\":", name);
    if (seconds == 0) {
        buf_puts(out, "null");
        return;
    }
    utc_text(seconds, text);
    buf_addf(out, "\"%s\"", text);
}

/* ---- progress and error ---- */

static void write_progress(struct buf *out, const struct unified_task *task)
{
    const struct progress_field *field = &task->provider->unified.progress;
    struct json_object *value = NULL;
    double number;
    buf_puts(out, ",\"progress\":");
    bool there = field->at.n_segments > 0 && json_at(task->doc, &field->at, NULL, &value) &&
                 number_of(value, field->form == PROGRESS_PERCENT_TEXT ? "%" : "", &number);
    if (task->state == STATE_SUCCEEDED) {
        buf_puts(out, "100");
    } else if (there) {
        number *= field->form == PROGRESS_FRACTION ? 100 : 1;
        buf_addf(out, "%d", number < 0 ? 0 : number > 100 ? 100 : (int)lround(number));
    } else {
        buf_puts(out, "null");
    }
}

static void write_error(struct buf *out, const struct unified_task *task)
{
    const struct list *paths = &task->provider->unified.error;
    bool ended_badly = task->state == STATE_FAILED || task->state == STATE_CANCELLED;
    buf_puts(out, ",\"error\":");
    for (size_t i = 0; i < paths->n && ended_badly; i++) {
        const struct json_path *path = (struct json_path *)paths->items + i;
        struct json_object *value = NULL;
        const char *text = json_at(task->doc, path, NULL, &value) ? json_text(value) : NULL;
        if (text == NULL || text[0] == '\0')
            continue;
        redact_json_string(out, text, strlen(text), task->secrets);
        return;
    }
    buf_puts(out, "null");
}

/* ---- results ---- */

struct results {
    struct buf *out;
    const struct unified_task *task;
    size_t n; /* written so far */
};

/* Writes a non-negative number as received, or null. */
static void write_number(struct results *r, const char *name, const struct json_path *path,
                         const size_t *indices)
{
    struct json_object *value = NULL;
    double number;
    buf_addf(r->out, ",\"%s\":", name);
    if (path->n_segments == 0 || !json_at(r->task->doc, path, indices, &value) ||
        !number_of(value, "", &number) || number < 0)
        buf_puts(r->out, "null");
    else if (json_object_is_type(value, json_type_string))
        buf_addf(r->out, "%.15g", number);
    else
        buf_puts(r->out, json_object_to_json_string(value));
}

static void write_result(struct results *r, const struct result_field *field, const char *url,
                         const size_t *indices)
{
    buf_addf(r->out, "%s{\"type\":", r->n++ > 0 ? "," : "");
    buf_add_json_string(r->out, field->type, strlen(field->type));
    buf_puts(r->out, ",\"url\":");
    redact_json_string(r->out, url, strlen(url), r->task->secrets);
    write_number(r, "width", &field->width, indices);
    write_number(r, "height", &field->height, indices);
    write_number(r, "duration_seconds", &field->duration_seconds, indices);
    write_number(r, "bytes", &field->bytes, indices);
    buf_putc(r->out, '}');
}

/* Follows the URL's path from `segment` on, visiting every member at a star; `indices` are the current ones. */
static void each_url(struct results *r, const struct result_field *field, struct json_object *value,
                     size_t segment, size_t *indices, size_t n_indices)
{
    const struct json_path *path = &field->url;
    if (segment == path->n_segments) {
        const char *url = json_text(value);
        if (url != NULL && strstr(url, "://") != NULL && r->n < MAX_RESULTS)
            write_result(r, field, url, indices);
    } else if (!json_path_is_star(path, segment)) {
        if (json_member(value, path->segments[segment], &value))
            each_url(r, field, value, segment + 1, indices, n_indices);
    } else if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value) && r->n < MAX_RESULTS; i++) {
            indices[n_indices] = i;
            each_url(r, field, json_object_array_get_idx(value, i), segment + 1, indices, n_indices + 1);
        }
    }
}

static void write_results(struct buf *out, const struct unified_task *task)
{
    const struct list *fields = &task->provider->unified.results;
    struct results r = {.out = out, .task = task};
    buf_puts(out, ",\"results\":[");
    for (size_t i = 0; i < fields->n && task->state == STATE_SUCCEEDED; i++) {
        size_t indices[JSON_PATH_SEGMENTS] = {0};
        each_url(&r, (struct result_field *)fields->items + i, task->doc, 0, indices, 0);
    }
    buf_putc(out, ']');
}

/* ---- the whole ---- */

void unified_write(struct unified_task *task, struct buf *out)
{
    const struct unified_fields *u = &task->provider->unified;
    struct json_object *doc = task->doc;
    int64_t expires_at = task->state == STATE_SUCCEEDED ? time_of(doc, &u->expires_at) : 0;
    if (expires_at != 0 && (task->urls_expire_at == 0 || expires_at < task->urls_expire_at))
        task->urls_expire_at = expires_at;
    task->created_at = time_of(doc, &u->created_at);

    buf_puts(out, "{\"provider\":");
    buf_add_json_string(out, task->provider->name, strlen(task->provider->name));
    buf_puts(out, ",\"task_id\":");
    buf_add_json_string(out, task->id, strlen(task->id));
    buf_addf(out, ",\"status\":\"%s\"", state_name(task->state));
    write_progress(out, task);
    write_error(out, task);
    write_time(out, "created_at", task->created_at);
    write_time(out, "started_at", time_of(doc, &u->started_at));
    /* Some providers only give the time of the last change: for an ended task, that is its end. */
    write_time(out, "finished_at", state_ended(task->state) ? time_of(doc, &u->finished_at) : 0);
    write_results(out, task);
    write_time(out, "results_expire_at", task->urls_expire_at);
    buf_putc(out, '}');
}
