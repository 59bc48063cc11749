/* cpus: see cpus.h.
 *
 * A control group (version 2) has its quota in cpu.max: "QUOTA PERIOD" in microseconds, or "max PERIOD". It also applies to
 * the groups below, so the files of all groups from the process's own up to the root are read. In a container, the kernel may
 * report a path of the host, of which only some directories, or only the root, exist here: a missing file sets no limit. */
#include "lib/cpus.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

enum { LINE_SIZE = 4096 + 64 };

static int affinity(void)
{
    /* A kernel for more processors than the set holds refuses it: then they are enough for any use. */
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : CPU_SETSIZE;
}

/* Processors that the group's quota is worth, rounded up; INT64_MAX: no limit. */
static int64_t quota_of(const char *root, const char *group)
{
    int64_t quota = 0, period = 0;
    char *path = xasprintf("%s/sys/fs/cgroup%s/cpu.max", root, group);
    FILE *file = fopen(path, "re");
    free(path);
    if (file == NULL)
        return INT64_MAX;
    int n = fscanf(file, "%" SCNd64 " %" SCNd64, &quota, &period);
    fclose(file);
    return n == 2 && quota > 0 && period > 0 ? (quota - 1) / period + 1 : INT64_MAX;
}

/* Cuts `group` back. */
static int64_t least_quota(const char *root, char *group)
{
    int64_t least = INT64_MAX;
    for (;;) {
        int64_t quota = quota_of(root, group);
        least = quota < least ? quota : least;
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

/* The group of the process has the line "0::/PATH". */
static bool read_group(const char *root, char line[static LINE_SIZE])
{
    char *path = xasprintf("%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    bool found = false;
    free(path);
    while (file != NULL && !found && fgets(line, LINE_SIZE, file) != NULL)
        found = strncmp(line, "0::", 3) == 0;
    if (file != NULL)
        fclose(file);
    return found;
}

int cpus_usable(const char *root)
{
    char line[LINE_SIZE];
    int allowed = affinity();
    if (!read_group(root, line))
        return allowed;
    line[strcspn(line, "\n")] = '\0';
    int64_t quota = least_quota(root, line + strlen("0::"));
    return quota < allowed ? (int)quota : allowed;
}
