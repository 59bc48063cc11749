/* cpus: see cpus.h.
 *
 * A quota stands in the folder of a control group: in version 2 as "QUOTA PERIOD" or "max PERIOD" in cpu.max, in
 * version 1 as one number each in cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us. Both are in microseconds. What
 * holds for a group holds for all groups in it, so every folder from the process's own up to the root is read. In a
 * container the path that the kernel gives may be the host's, of which only the upper folders are there, or none but
 * the root: a folder that is missing sets no limit. */
#include "lib/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

enum { CPUS_MAX = 1 << 16, LINE_SIZE = 4096 + 64 };

static int affinity(void)
{
    for (int n = CPU_SETSIZE; n <= CPUS_MAX; n *= 2) { /* EINVAL: the kernel knows of more */
        cpu_set_t *set = CPU_ALLOC(n);
        size_t size = CPU_ALLOC_SIZE(n);
        int count = set != NULL && sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    return 1;
}

/* The first line of a file, without its line feed; false when there is none. */
static bool read_line(const char *folder, const char *name, char line[static LINE_SIZE])
{
    char *path = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    free(path);
    bool found = file != NULL && fgets(line, LINE_SIZE, file) != NULL;
    if (file != NULL)
        fclose(file);
    if (found)
        line[strcspn(line, "\n")] = '\0';
    return found;
}

/* Processors that a quota is worth, rounded up; INT_MAX: no limit. */
static int worth(const char *quota_text, const char *period_text)
{
    int64_t quota, period;
    if (parse_int(quota_text, &quota) < 0 || parse_int(period_text, &period) < 0 || quota <= 0 || period <= 0)
        return INT_MAX;
    int64_t whole = quota / period + (quota % period != 0);
    return whole > INT_MAX ? INT_MAX : (int)whole;
}

static int quota_v2(const char *folder)
{
    char line[LINE_SIZE], *rest = line;
    if (!read_line(folder, "cpu.max", line))
        return INT_MAX;
    const char *quota = strsep(&rest, " ");
    return rest != NULL ? worth(quota, rest) : INT_MAX;
}

static int quota_v1(const char *folder)
{
    char quota[LINE_SIZE], period[LINE_SIZE];
    if (!read_line(folder, "cpu.cfs_quota_us", quota) || !read_line(folder, "cpu.cfs_period_us", period))
        return INT_MAX;
    return worth(quota, period);
}

/* The least quota from `mount` + `path` up to `mount` itself. Cuts `path` back. */
static int quota_upwards(int (*quota_of)(const char *folder), const char *mount, char *path)
{
    int least = INT_MAX;
    for (;;) {
        char *folder = xasprintf("%s%s", mount, path);
        int quota = quota_of(folder);
        free(folder);
        least = quota < least ? quota : least;
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += len) {
        if ((at == list || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
            return true;
    }
    return false;
}

/* By a line of /proc/self/cgroup: "0::/path" (version 2) or "4:cpu,cpuacct:/path" (version 1). */
static int quota_of_line(const char *root, char *line)
{
    char *path = line;
    const char *number = strsep(&path, ":"), *controllers = strsep(&path, ":");
    if (path == NULL)
        return INT_MAX;
    bool v2 = strcmp(number, "0") == 0 && controllers[0] == '\0';
    if (!v2 && !has_word(controllers, "cpu"))
        return INT_MAX;
    char *mount = xasprintf("%s/sys/fs/cgroup%s%s", root, v2 ? "" : "/", controllers);
    int quota = quota_upwards(v2 ? quota_v2 : quota_v1, mount, path);
    free(mount);
    return quota;
}

static int least_quota(const char *root)
{
    char *path = xasprintf("%s/proc/self/cgroup", root), line[LINE_SIZE];
    FILE *file = fopen(path, "re");
    int least = INT_MAX;
    free(path);
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        int quota = quota_of_line(root, line);
        least = quota < least ? quota : least;
    }
    if (file != NULL)
        fclose(file);
    return least;
}

int cpus_usable(const char *root)
{
    int allowed = affinity(), quota = least_quota(root);
    return quota < allowed ? quota : allowed;
}
