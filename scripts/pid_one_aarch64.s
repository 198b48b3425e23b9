# The program of ketch.runtime.pid_one for aarch64. Its bytes there are those of
#   as FILE -o pid_one.o && objcopy -O binary -j .text pid_one.o pid_one
# less the data at the end, and a test compares them.
.globl _start
_start:    # prctl(PR_SET_NAME, name); rt_sigprocmask(SIG_SETMASK, every, NULL, 8); close(ready)
  sub sp, sp, #256
  mov x0, #15
  adr x1, name
  mov x8, #167
  svc #0
  mov x0, #2
  adr x1, every
  mov x2, #0
  mov x3, #8
  mov x8, #135
  svc #0
  ldr w0, ready
  mov x8, #57
  svc #0
next:      # rt_sigtimedwait(every, siginfo, NULL, 8); only EINTR is tried again
  adr x0, every
  mov x1, sp
  mov x2, #0
  mov x3, #8
  mov x8, #137
  svc #0
  cmp w0, #0
  b.gt caught
  cmn w0, #4
  b.eq next
  mov x0, #125
  b leave
caught:    # kill(child, signal), but for SIGCHLD
  cmp w0, #17
  b.eq reap
  mov w1, w0
  ldr w0, child
  mov x8, #129
  svc #0
  b next
reap:      # wait4(-1, status, WNOHANG, NULL), until there are no more; the child ends this too
  mov x0, #-1
  mov x1, sp
  mov x2, #1
  mov x3, #0
  mov x8, #260
  svc #0
  cmp w0, #0
  b.le next
  ldr w1, child
  cmp w0, w1
  b.ne reap
  ldr w1, [sp]
  ubfx w0, w1, #8, #8
  ands w1, w1, #127
  b.eq leave
  add w0, w1, #128
leave:     # exit_group(its status, or 128 and its signal)
  mov x8, #94
  svc #0
.balign 8
every: .quad -1
name: .asciz "docker-init"
child: .word 0
ready: .word 0
