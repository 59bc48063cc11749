# make        the program: build/taskproxy
# make run    everything on this machine, with a stand-in for the upstream, until Ctrl-C
# make test   lint, unit tests, scenario tests
# make bench  the figures, side by side

CC       ?= gcc
PKGS      = libcurl json-c hiredis libuv libcrypto
WARNINGS  = -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla
HARDENING = -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
CPPFLAGS  = -D_GNU_SOURCE
CFLAGS    = -std=gnu11 -O2 -g $(WARNINGS) $(HARDENING)
LDFLAGS   = -pie -Wl,-z,relro,-z,now
ASAN      = -std=gnu11 -O1 -g $(WARNINGS) -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LIBS        = -lfcgi $(PKG_LIBS) -lm

SOURCES := $(wildcard fcgi/*.c)
OBJECTS := $(SOURCES:fcgi/%.c=build/%.o)
ASAN_OBJECTS := $(SOURCES:fcgi/%.c=build/asan/%.o)

all: packages build/taskproxy

packages:
	@tests/install-packages build

build/taskproxy: $(OBJECTS)
	@echo '  LD   $@'
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

build/asan/taskproxy: $(ASAN_OBJECTS)
	@echo '  LD   $@'
	@$(CC) $(ASAN) -o $@ $^ $(LIBS)

build/%.o: fcgi/%.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(PKG_CFLAGS) -MMD -c -o $@ $<

build/asan/%.o: fcgi/%.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(ASAN) $(PKG_CFLAGS) -MMD -c -o $@ $<

-include $(wildcard build/*.d build/asan/*.d)
.PHONY: all packages
