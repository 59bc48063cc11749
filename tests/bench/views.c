/* The time from the bytes of a large answer to both views, and the time of json-c to parse them alone. Prints both
 * medians, in microseconds, and the size.
 *
 *     views PROVIDER_FILE ANSWER_FILE ROUNDS */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "upstream/view.h"

enum { BATCH = 200, ROUNDS_MAX = 10000 };

static double now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double parse_alone(const struct file *body)
{
    double start = now_us();
    for (int i = 0; i < BATCH; i++) {
        struct json_tokener *tokener = json_tokener_new_ex(32);
        struct json_object *doc = json_tokener_parse_ex(tokener, body->data, (int)body->len);
        if (doc == NULL)
            exit(EXIT_FAILURE);
        json_object_put(doc);
        json_tokener_free(tokener);
    }
    return (now_us() - start) / BATCH;
}

static double make_views(const struct provider *provider, const struct file *body)
{
    const struct secrets secrets = {.items = {"sk-0123456789abcdef"}};
    const struct view_input input = {.provider = provider, .task_id = "task", .secrets = &secrets};
    const struct view_answer answer = {.http_status = 200, .body = body->data, .len = body->len};
    double start = now_us();
    for (int i = 0; i < BATCH; i++) {
        struct view view;
        if (view_read(&input, &answer, NULL, &view) != OUTCOME_OK)
            exit(EXIT_FAILURE);
        view_done(&view);
    }
    return (now_us() - start) / BATCH;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), by_size);
    return values[n / 2];
}

int main(int argc, char **argv)
{
    static double alone[ROUNDS_MAX], views[ROUNDS_MAX];
    int rounds = argc == 4 ? atoi(argv[3]) : 0;
    if (rounds < 1 || rounds > ROUNDS_MAX)
        return EXIT_FAILURE;
    char *error = NULL;
    struct files *files = files_new(FILES_ALL);
    struct provider *provider = provider_load(files, argv[1], &error);
    const struct file *body = files_get(files, argv[2], FILE_PLAIN, 1 << 20, &error);
    if (provider == NULL || body == NULL)
        return EXIT_FAILURE;
    for (int i = 0; i < rounds; i++) {
        alone[i] = parse_alone(body);
        views[i] = make_views(provider, body);
    }
    printf("%.2f %.2f %zu\n", median(alone, rounds), median(views, rounds), body->len);
    provider_free(provider);
    files_free(files);
    return EXIT_SUCCESS;
}
