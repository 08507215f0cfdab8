; An XLA custom call that deals out a computation in chunks over XLA's own threads.
;
; It is joined with a function @body(chunk, operand, operand, result) and a number @chunks. The caller's
; thread works too, and returns once every chunk is done, so that nothing depends on how many threads are
; free: a helper that comes too late finds no chunk left. Whoever leaves last frees the job.
;
; Layouts: XLA's typed FFI 0.1, the same in jaxlib 0.7 and 0.12 (jaxlib/include/xla/ffi/api/c_api.h).

%Version = type { i64, ptr, i32, i32 }                       ; size, extensions, major, minor
%Metadata = type { i64, %Version }                           ; size, version
%Extension = type { i64, i32, ptr, ptr }                     ; size, kind, next, metadata
%Buffers = type { i64, ptr, i64, ptr, ptr }                  ; size, extensions, count, kinds, buffers
%CallFrame = type { i64, ptr, ptr, ptr, i32, %Buffers, %Buffers } ; size, extensions, api, context, stage, in, out
%Buffer = type { i64, ptr, i32, ptr }                        ; size, extensions, kind of numbers, numbers
%Api = type { i64, ptr, %Version, ptr, [13 x ptr] }          ; size, extensions, version, internals, functions
%Schedule = type { i64, ptr, ptr, ptr, ptr }                 ; size, extensions, context, task, data
%Threads = type { i64, ptr, ptr, ptr }                       ; size, extensions, context, number
%Destroy = type { i64, ptr, ptr }                            ; size, extensions, error

%Job = type { i64, i64, i64, ptr, ptr, ptr }                 ; next chunk, chunks done, owners, a, b, result

declare ptr @malloc(i64)
declare void @free(ptr)
declare void @abort()
declare i32 @sched_yield()

define internal void @work(ptr %job) {
entry:
  %done = getelementptr %Job, ptr %job, i64 0, i32 1
  %a.at = getelementptr %Job, ptr %job, i64 0, i32 3
  %b.at = getelementptr %Job, ptr %job, i64 0, i32 4
  %result.at = getelementptr %Job, ptr %job, i64 0, i32 5
  %a = load ptr, ptr %a.at
  %b = load ptr, ptr %b.at
  %result = load ptr, ptr %result.at
  %all = load i64, ptr @chunks
  br label %next
next:
  %chunk = atomicrmw add ptr %job, i64 1 monotonic
  %left = icmp ult i64 %chunk, %all
  br i1 %left, label %take, label %leave
take:
  call void @body(i64 %chunk, ptr %a, ptr %b, ptr %result)
  atomicrmw add ptr %done, i64 1 release
  br label %next
leave:
  ret void
}

define internal void @release(ptr %job) {
  %owners = getelementptr %Job, ptr %job, i64 0, i32 2
  %before = atomicrmw sub ptr %owners, i64 1 acq_rel
  %last = icmp eq i64 %before, 1
  br i1 %last, label %free, label %leave
free:
  call void @free(ptr %job)
  ret void
leave:
  ret void
}

define internal void @help(ptr %job) {
  call void @work(ptr %job)
  call void @release(ptr %job)
  ret void
}

define internal ptr @numbers(ptr %buffers, i64 %index) {
  %list.at = getelementptr %Buffers, ptr %buffers, i64 0, i32 4
  %list = load ptr, ptr %list.at
  %buffer.at = getelementptr ptr, ptr %list, i64 %index
  %buffer = load ptr, ptr %buffer.at
  %numbers.at = getelementptr %Buffer, ptr %buffer, i64 0, i32 3
  %numbers = load ptr, ptr %numbers.at
  ret ptr %numbers
}

; Calls a function of XLA's; whether it worked. Its error is destroyed: nobody needs a helper.
define internal i1 @ask(ptr %api, i64 %which, ptr %arguments) {
  %function.at = getelementptr %Api, ptr %api, i64 0, i32 4, i64 %which
  %function = load ptr, ptr %function.at
  %error = call ptr %function(ptr %arguments)
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %leave, label %destroy
destroy:
  %destroyed = alloca %Destroy
  store %Destroy { i64 24, ptr null, ptr null }, ptr %destroyed
  %error.at = getelementptr %Destroy, ptr %destroyed, i64 0, i32 2
  store ptr %error, ptr %error.at
  %destructor.at = getelementptr %Api, ptr %api, i64 0, i32 4, i64 2
  %destructor = load ptr, ptr %destructor.at
  call void %destructor(ptr %destroyed)
  br label %leave
leave:
  ret i1 %fine
}

define ptr @handler(ptr %frame) {
entry:
  %threads = alloca i64
  %counted = alloca %Threads
  %scheduled = alloca %Schedule
  %extensions.at = getelementptr %CallFrame, ptr %frame, i64 0, i32 1
  %extension = load ptr, ptr %extensions.at
  %called = icmp eq ptr %extension, null
  br i1 %called, label %execute, label %extended

extended:
  %kind.at = getelementptr %Extension, ptr %extension, i64 0, i32 1
  %kind = load i32, ptr %kind.at
  %asked = icmp eq i32 %kind, 1
  br i1 %asked, label %introduce, label %execute

introduce: ; XLA asks which version this was written for
  %metadata.at = getelementptr %Extension, ptr %extension, i64 0, i32 3
  %metadata = load ptr, ptr %metadata.at
  %major = getelementptr %Metadata, ptr %metadata, i64 0, i32 1, i32 2
  %minor = getelementptr %Metadata, ptr %metadata, i64 0, i32 1, i32 3
  store i32 0, ptr %major
  store i32 1, ptr %minor
  ret ptr null

execute:
  %api.at = getelementptr %CallFrame, ptr %frame, i64 0, i32 2
  %api = load ptr, ptr %api.at
  %context.at = getelementptr %CallFrame, ptr %frame, i64 0, i32 3
  %context = load ptr, ptr %context.at
  %in = getelementptr %CallFrame, ptr %frame, i64 0, i32 5
  %out = getelementptr %CallFrame, ptr %frame, i64 0, i32 6
  %a = call ptr @numbers(ptr %in, i64 0)
  %b = call ptr @numbers(ptr %in, i64 1)
  %result = call ptr @numbers(ptr %out, i64 0)
  %job = call ptr @malloc(i64 48)
  %none = icmp eq ptr %job, null
  br i1 %none, label %exhausted, label %prepare

exhausted:
  call void @abort()
  unreachable

prepare:
  %done = getelementptr %Job, ptr %job, i64 0, i32 1
  %owners = getelementptr %Job, ptr %job, i64 0, i32 2
  %a.at = getelementptr %Job, ptr %job, i64 0, i32 3
  %b.at = getelementptr %Job, ptr %job, i64 0, i32 4
  %result.at = getelementptr %Job, ptr %job, i64 0, i32 5
  store i64 0, ptr %job
  store i64 0, ptr %done
  store i64 1, ptr %owners
  store ptr %a, ptr %a.at
  store ptr %b, ptr %b.at
  store ptr %result, ptr %result.at
  store i64 1, ptr %threads
  store %Threads { i64 32, ptr null, ptr null, ptr null }, ptr %counted
  %counted.context = getelementptr %Threads, ptr %counted, i64 0, i32 2
  %counted.number = getelementptr %Threads, ptr %counted, i64 0, i32 3
  store ptr %context, ptr %counted.context
  store ptr %threads, ptr %counted.number
  call i1 @ask(ptr %api, i64 12, ptr %counted)
  %number = load i64, ptr %threads
  %all = load i64, ptr @chunks
  %fewer = call i64 @llvm.umin.i64(i64 %number, i64 %all)
  store %Schedule { i64 40, ptr null, ptr null, ptr @help, ptr null }, ptr %scheduled
  %scheduled.context = getelementptr %Schedule, ptr %scheduled, i64 0, i32 2
  %scheduled.data = getelementptr %Schedule, ptr %scheduled, i64 0, i32 4
  store ptr %context, ptr %scheduled.context
  store ptr %job, ptr %scheduled.data
  br label %helpers

helpers:
  %helper = phi i64 [ 1, %prepare ], [ %following, %came ], [ %following, %failed ]
  %following = add i64 %helper, 1
  %wanted = icmp ult i64 %helper, %fewer
  br i1 %wanted, label %schedule, label %own
schedule:
  atomicrmw add ptr %owners, i64 1 monotonic
  %fine = call i1 @ask(ptr %api, i64 11, ptr %scheduled)
  br i1 %fine, label %came, label %failed
came:
  br label %helpers
failed:
  atomicrmw sub ptr %owners, i64 1 monotonic
  br label %helpers

own:
  call void @work(ptr %job)
  br label %wait
wait:
  %ready = load atomic i64, ptr %done acquire, align 8
  %whole = icmp eq i64 %ready, %all
  br i1 %whole, label %leave, label %yield
yield:
  call i32 @sched_yield()
  br label %wait
leave:
  call void @release(ptr %job)
  ret ptr null
}

declare i64 @llvm.umin.i64(i64, i64)
