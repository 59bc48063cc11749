/* descriptors: see descriptors.h. */
#include "lib/descriptors.h"

#include <errno.h>
#include <sys/resource.h>

#include "lib/log.h"
#include "lib/stats.h"

static int seconds_left; /* until the process counts as recovered; 0: it has descriptors */

static void report(int error)
{
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    if (error == EMFILE)
        log_error("out of file descriptors: RLIMIT_NOFILE is %llu (LimitNOFILE= of the service)",
                  (unsigned long long)files.rlim_cur);
    else
        log_error("out of file descriptors: the whole system has reached its limit (sysctl fs.file-max)");
}

bool descriptors_exhausted(int error)
{
    if (error != EMFILE && error != ENFILE)
        return false;
    if (seconds_left == 0)
        report(error);
    seconds_left = DESCRIPTORS_CALM_S;
    stat_set(STAT_DESCRIPTORS_EXHAUSTED, 1);
    return true;
}

void descriptors_tick(void)
{
    if (seconds_left == 0 || --seconds_left > 0)
        return;
    stat_set(STAT_DESCRIPTORS_EXHAUSTED, 0);
    log_info("file descriptors are available again");
}
