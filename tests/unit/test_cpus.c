/* Processors allowed by affinity and by the quotas of control groups, in a root directory made for the test. */
#include "unit.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cpus.h"
#include "lib/util.h"

static char root[] = "/tmp/test_cpus.XXXXXX";
static int online; /* processors that the affinity of the test allows */

static int run_in_root(const char *command)
{
    char *line = xasprintf("cd %s && %s", root, command);
    int status = system(line);
    free(line);
    return status;
}

static int make_root(void **unused __attribute__((unused)))
{
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int remove_root(void **unused __attribute__((unused)))
{
    return run_in_root("rm -r proc sys && rmdir $PWD");
}

static void given_file(const char *path, const char *text)
{
    char *folders = xasprintf("mkdir -p $(dirname %s)", path), *name = xasprintf("%s/%s", root, path);
    assert_int_equal(run_in_root(folders), 0);
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(folders);
    free(name);
}

/* Sets the group of the process, as lines of /proc/self/cgroup. */
static void given_group(const char *lines)
{
    assert_int_equal(run_in_root("rm -rf proc sys && mkdir -p sys/fs/cgroup"), 0);
    given_file("proc/self/cgroup", lines);
}

/* The quota leaves this many processors, or as many as this machine has if it has fewer. */
static void assert_quota(int cpus)
{
    assert_int_equal(cpus_usable(root), cpus < online ? cpus : online);
}

TEST(without_control_groups_affinity_decides)
{
    given_group("");
    assert_quota(online);
    assert_int_equal(run_in_root("rm proc/self/cgroup"), 0);
    assert_quota(online);
}

TEST(affinity_to_one_processor_gives_one)
{
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    }
    given_group("0::/a\n");
    given_file("sys/fs/cgroup/a/cpu.max", "900000 100000\n");
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(cpus_usable(root), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(quota_is_rounded_up_to_whole_processors)
{
    static const struct {
        const char *quota;
        int cpus;
    } cases[] = {{"100000 100000", 1}, {"1000 100000", 1},   {"100001 100000", 2},
                 {"50000 25000", 2},   {"max 100000", 9999}, {"900000 1", 9999}};
    given_group("0::/service\n");
    for (size_t i = 0; i < NELEMS(cases); i++) {
        given_file("sys/fs/cgroup/service/cpu.max", cases[i].quota);
        assert_quota(cases[i].cpus);
    }
}

TEST(unreadable_quota_sets_no_limit)
{
    static const char *const texts[] = {"",         "\n",  "100000",    "0 100000", "-1 100000",
                                        "100000 0", "x y", "100000x 1", " ",        "max"};
    given_group("0::/\n");
    for (size_t i = 0; i < NELEMS(texts); i++) {
        given_file("sys/fs/cgroup/cpu.max", texts[i]);
        assert_quota(online);
    }
}

TEST(quotas_of_parent_groups_count)
{
    given_group("0::/a/b/c\n");
    given_file("sys/fs/cgroup/a/b/c/cpu.max", "max 100000");
    given_file("sys/fs/cgroup/a/cpu.max", "100000 100000");
    assert_quota(1);
    given_file("sys/fs/cgroup/a/b/cpu.max", "200000 100000");
    assert_quota(1);
}

TEST(container_finds_its_group_at_the_root_despite_the_host_path)
{
    given_group("0::/docker/0123\n");
    given_file("sys/fs/cgroup/cpu.max", "100000 100000");
    assert_quota(1);
}

TEST(cgroup_v1_groups_set_no_limit)
{
    given_group("4:cpu,cpuacct:/a\n0::/b\n");
    given_file("sys/fs/cgroup/a/cpu.max", "100000 100000");
    assert_quota(online);
    given_file("sys/fs/cgroup/b/cpu.max", "100000 100000");
    assert_quota(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_control_groups_affinity_decides),
        cmocka_unit_test(affinity_to_one_processor_gives_one),
        cmocka_unit_test(quota_is_rounded_up_to_whole_processors),
        cmocka_unit_test(unreadable_quota_sets_no_limit),
        cmocka_unit_test(quotas_of_parent_groups_count),
        cmocka_unit_test(container_finds_its_group_at_the_root_despite_the_host_path),
        cmocka_unit_test(cgroup_v1_groups_set_no_limit),
    };
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    online = CPU_COUNT(&set);
    return cmocka_run_group_tests_name("cpus", tests, make_root, remove_root);
}
