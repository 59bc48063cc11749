/* cpus: see cpus.h.
 *
 * A quota is in the directory of a control group: in version 2 as "QUOTA PERIOD" or "max PERIOD" in cpu.max,
 * in version 1 as one number each in cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us. Both are in
 * microseconds. The limit of a group also applies to its descendants, so every directory from the process's
 * own up to the root is read. In a container, the kernel may report a path of the host, of which only some
 * directories, or only the root, exist here: a missing directory sets no limit. */
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
    cpu_set_t
        set; /* a kernel for more processors than it holds refuses it: then they are enough for any use */
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : CPU_SETSIZE;
}

/* How many numbers, of two, a file begins with. */
static int read_numbers(const char *folder, const char *name, int64_t *ret_first, int64_t *ret_second)
{
    char *path = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    free(path);
    if (file == NULL)
        return 0;
    int n = fscanf(file, "%" SCNd64 " %" SCNd64, ret_first, ret_second);
    fclose(file);
    return n;
}

/* Processors that the folder's quota is worth, rounded up; INT64_MAX: no limit. */
static int64_t quota_of(const char *folder)
{
    int64_t quota = 0, period = 0, none;
    if (read_numbers(folder, "cpu.max", &quota, &period) != 2) {
        read_numbers(folder, "cpu.cfs_quota_us", &quota, &none);
        read_numbers(folder, "cpu.cfs_period_us", &period, &none);
    }
    return quota > 0 && period > 0 ? (quota - 1) / period + 1 : INT64_MAX;
}

/* The least quota from `mount` + `path` up to `mount` itself. Cuts `path` back. */
static int64_t quota_upwards(const char *mount, char *path)
{
    int64_t least = INT64_MAX;
    for (;;) {
        char *folder = xasprintf("%s%s", mount, path);
        int64_t quota = quota_of(folder);
        free(folder);
        least = quota < least ? quota : least;
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

static bool has_cpu(const char *controllers)
{
    char *list = xasprintf(",%s,", controllers);
    bool found = strstr(list, ",cpu,") != NULL;
    free(list);
    return found;
}

/* By a line of /proc/self/cgroup: "0::/path" (version 2) or "4:cpu,cpuacct:/path" (version 1). */
static int64_t quota_of_line(const char *root, char *path)
{
    const char *number = strsep(&path, ":"), *controllers = strsep(&path, ":");
    if (path == NULL || (strcmp(number, "0") != 0 && !has_cpu(controllers)))
        return INT64_MAX;
    path[strcspn(path, "\n")] = '\0';
    char *mount = xasprintf("%s/sys/fs/cgroup/%s", root, controllers);
    int64_t quota = quota_upwards(mount, path);
    free(mount);
    return quota;
}

static int64_t least_quota(const char *root)
{
    char *path = xasprintf("%s/proc/self/cgroup", root), line[LINE_SIZE];
    FILE *file = fopen(path, "re");
    int64_t least = INT64_MAX;
    free(path);
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        int64_t quota = quota_of_line(root, line);
        least = quota < least ? quota : least;
    }
    if (file != NULL)
        fclose(file);
    return least;
}

int cpus_usable(const char *root)
{
    int allowed = affinity();
    int64_t quota = least_quota(root);
    return quota < allowed ? (int)quota : allowed;
}
