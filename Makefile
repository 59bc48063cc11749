# make        builds build/taskproxy and the manual page build/man/taskproxy.json.5
# make run    runs everything on this machine, with a stand-in upstream, until Ctrl-C      (PORT= UPSTREAM= KEY_FILE= ORIGIN=)
# make test   runs lint, unit tests and scenario tests, one of which is chaos of 30 s      (NO_SKIPS=)
# make test-hard  runs the scenario tests in random order, and chaos, on one busy core     (HARD_RUNS= HARD_SEED= HARD_CHAOS=)
# make chaos  breaks parts of a running installation at random, and checks the answers     (MINUTES= SEED=)
# make soak   follows 100,000 tasks an hour, and checks that memory and descriptors stay flat (HOURS=)
# make test-production  executes the commands of conf/production.md on two Debian hosts   (RELEASE=)
# make bench  measures taskproxy, side by side with reference programs                     (BENCH= BENCH_SECONDS= BENCH_QUICK=)
# make fuzz   runs each fuzzer for a minute                                                (FUZZ_SECONDS=)
#
# make deb    builds a Debian package: build/taskproxy_VERSION_ARCHITECTURE.deb
#
# Each of these first installs missing Debian packages. The following one does not.
#
# make install  installs the program, its configuration, units and documents      (PREFIX= SYSCONFDIR= DESTDIR=)

CC       ?= gcc
PKGS     := libcurl json-c hiredis libuv libcrypto libssl libseccomp
WARNINGS  = -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla
FORTIFY   = -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
HARDENING = $(FORTIFY) -fstack-protector-strong $(ACCEPTED) -fPIE
CPPFLAGS  = -D_GNU_SOURCE -Ifcgi -DHAVE_HIREDIS_SSL=$(if $(HIREDIS_SSL),1,0)
OPTIMIZE  = -O2 -g
CFLAGS    = -std=gnu11 $(OPTIMIZE) $(WARNINGS) $(HARDENING)
LDFLAGS   = -pie -Wl,-z,relro,-z,now
SANITIZE  = -fsanitize=address,undefined -fno-sanitize-recover=all
ASAN      = -std=gnu11 -O1 -g -fPIC $(WARNINGS) -U_FORTIFY_SOURCE $(SANITIZE) -fno-omit-frame-pointer

# Hardening that depends on the processor and on the compiler: the flags that $(CC) accepts.
OPTIONAL := -fstack-clash-protection -fcf-protection -mbranch-protection=standard
ACCEPTED := $(shell for flag in $(OPTIONAL); do $(CC) -Werror $$flag -S -o /dev/null -x c /dev/null 2> /dev/null && echo $$flag; done)

# Debian 12's hiredis has no TLS.
HIREDIS_SSL := $(shell pkg-config --exists hiredis_ssl 2>/dev/null && echo hiredis_ssl)
PKGS        += $(HIREDIS_SSL)

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LIBS        = -lfcgi $(PKG_LIBS) -lm

SOURCES      := $(wildcard fcgi/*.c fcgi/*/*.c)
OBJECTS      := $(SOURCES:fcgi/%.c=build/%.o)
ASAN_OBJECTS := $(SOURCES:fcgi/%.c=build/asan/%.o)

# Missing packages are installed first; then make runs again, so that it uses pkg-config's new output.
INSTALL = @tests/install-packages
AGAIN   = @$(MAKE) -s -j$(shell nproc)

all:
	$(INSTALL) build
	$(AGAIN) build/taskproxy build/man/taskproxy.json.5

run:
	$(INSTALL) build run
	$(AGAIN) build/taskproxy
	@exec /usr/bin/python3 tests/run.py

test:
	$(INSTALL) build run test deb
	$(AGAIN) build/taskproxy build/asan/taskproxy unit-programs
	@/usr/bin/python3 tests/run_tests.py

test-hard:
	$(INSTALL) build run test deb
	$(AGAIN) build/taskproxy build/asan/taskproxy
	@/usr/bin/python3 tests/run_hard.py

test-production:
	$(INSTALL) machines
	@/usr/bin/python3 tests/production.py $(or $(RELEASE),bookworm)

chaos:
	$(INSTALL) build run test
	$(AGAIN) build/taskproxy build/asan/taskproxy
	@/usr/bin/python3 tests/chaos.py

soak:
	$(INSTALL) build run test
	$(AGAIN) build/taskproxy
	@/usr/bin/python3 tests/soak.py

bench:
	$(INSTALL) build run bench $(filter peers growth,$(BENCH))
	$(AGAIN) build/taskproxy bench-programs
	@/usr/bin/python3 tests/bench/bench.py

clean:
	rm -rf build

build/taskproxy: $(OBJECTS)
	@echo '  LD   $@'
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

build/asan/taskproxy: $(ASAN_OBJECTS)
	@echo '  LD   $@'
	@$(CC) $(ASAN) -o $@ $^ $(LIBS)

# The reference of all keys is generated from the program's tables and inserted into the page.
build/man/taskproxy.json.5: conf/man/taskproxy.json.5.in conf/man/keys.awk build/taskproxy
	@mkdir -p $(@D)
	@build/taskproxy --print-tables > $@.tables
	@awk -f conf/man/keys.awk $@.tables > $@.keys
	@sed '/^\.\\" BEGIN$$/r $@.keys' $< > $@
	@rm $@.tables $@.keys

build/%.o: fcgi/%.c Makefile
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

build/asan/%.o: fcgi/%.c Makefile
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(ASAN) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

include $(wildcard tests/*/*.mk) conf/install.mk
-include $(OBJECTS:.o=.d) $(ASAN_OBJECTS:.o=.d)

unit-programs: $(UNIT_PROGRAMS)
bench-programs: $(BENCH_PROGRAMS)

.PHONY: all run test test-hard test-production chaos soak bench clean unit-programs bench-programs
.DELETE_ON_ERROR:
