/* The time to look up a token: the valid one of the first team, the valid one of the last, and invalid ones of
 * the same length that differ in their first or last byte, in turns. Prints the median of each, in nanoseconds,
 * and then the noise: the interquartile range of single lookups.
 *
 *     tokens TRIES */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config/teams.h"

enum { TEAMS = 100, SUBJECTS = 4, TRIES_MAX = 1000000 };

static double now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static char *token_of(int team)
{
    return xasprintf("tp-%064d", team);
}

/* Teams as teams_load() makes them. */
static struct teams make_teams(void)
{
    struct team *all = xcalloc(TEAMS, sizeof(*all));
    for (int i = 0; i < TEAMS; i++) {
        unsigned char digest[32];
        char **texts = xcalloc(1, sizeof(*texts)), *token = token_of(i);
        texts[0] = xcalloc(65, 1);
        sha256(token, strlen(token), digest);
        hex_encode(digest, sizeof(digest), texts[0]);
        all[i] = (struct team){.token_sha256 = {.items = texts, .n = 1}};
        free(token);
    }
    return (struct teams){.list = {.items = all, .n = TEAMS}};
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static double ns[SUBJECTS][TRIES_MAX];
    int tries = argc == 2 ? atoi(argv[1]) : 0;
    if (tries < 1 || tries > TRIES_MAX)
        return EXIT_FAILURE;
    const struct teams teams = make_teams();
    char *tokens[SUBJECTS] = {token_of(0), token_of(TEAMS - 1), token_of(0), token_of(0)};
    tokens[2][0] = 'x';
    tokens[3][strlen(tokens[3]) - 1] = 'x';
    for (int i = 0; i < tries; i++) {
        for (int k = 0; k < SUBJECTS; k++) {
            double start = now_ns();
            const struct team *team = teams_by_token(&teams, tokens[k], strlen(tokens[k]));
            ns[k][i] = now_ns() - start;
            if ((team != NULL) != (k < 2))
                return EXIT_FAILURE;
        }
    }
    double noise = 0;
    for (int k = 0; k < SUBJECTS; k++) {
        qsort(ns[k], (size_t)tries, sizeof(double), by_size);
        printf("%.0f ", ns[k][tries / 2]);
        noise += (ns[k][tries * 3 / 4] - ns[k][tries / 4]) / SUBJECTS;
    }
    printf("%.0f\n", noise);
    return EXIT_SUCCESS;
}
